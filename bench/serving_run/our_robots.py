"""Robots of ours and of openpi's client, unmodified; and who asks for health."""

from __future__ import annotations

import http.client
import itertools
import time
from collections.abc import Callable

import grpc
from bare_stream import ByteStream
from grpc_health.v1 import health_pb2, health_pb2_grpc
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from payloads import HORIZON, INSTRUCTION, PAYLOADS
from robots import Ask, Robots
from stations import Stamps
from worker import work

from pirl_contract import Observation
from pirl_contract.client import PolicyClient

TIMEOUT_S = 20.0
NUMBERS = itertools.count()


def unary(port: int, payload: str, number: int) -> Ask:
    return _ours(PolicyClient(*_who(port), transport="unary", encoding="rgb8"), payload)


def session(port: int, payload: str, number: int) -> Ask:
    return _ours(PolicyClient(*_who(port), encoding="rgb8"), payload)


def shared(port: int, payload: str, number: int) -> Ask:
    return _ours(PolicyClient(*_who(port), encoding="shared_memory"), payload)


def _who(port: int) -> tuple[str, str, float]:
    """Address, name and patience of a robot that is not any other."""
    return f"127.0.0.1:{port}", f"robot-{next(NUMBERS)}", TIMEOUT_S


def _ours(client: PolicyClient, payload: str) -> Ask:
    sizes = PAYLOADS[payload]
    observation = Observation(sizes.images(), sizes.state(), INSTRUCTION)
    client.info()

    def ask() -> None:
        assert len(client.infer(observation).actions) == HORIZON

    return ask


def openpi(port: int, payload: str, number: int) -> Ask:
    sizes, client = PAYLOADS[payload], WebsocketClientPolicy("127.0.0.1", port)
    names = {f"observation/{name}": image for name, image in sizes.images().items()}
    message = {**names, "observation/state": sizes.state(), "prompt": INSTRUCTION}

    def ask() -> None:
        assert len(client.infer(message)["actions"]) == HORIZON

    return ask


def bare(port: int, payload: str, number: int) -> Ask:
    return ByteStream(port).ask


def probe_http(port: int, seconds: float, rate_hz: float = 10.0) -> list[float]:
    """Milliseconds of each GET /healthz, a connection each."""

    def get() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()

    return _probe(get, seconds, rate_hz)


def probe_grpc(port: int, seconds: float, rate_hz: float = 10.0) -> list[float]:
    """Milliseconds of each call of gRPC's health service, on one connection, as its clients do."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def check() -> None:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING

        return _probe(check, seconds, rate_hz)


def _probe(check: Callable[[], None], seconds: float, rate_hz: float) -> list[float]:
    spans, start = [], time.monotonic()
    check()
    for number in range(int(seconds * rate_hz)):
        if (wait := start + number / rate_hz - time.monotonic()) > 0:
            time.sleep(wait)
        elif time.monotonic() > start + seconds:
            break
        began = time.perf_counter()
        check()
        spans.append(1e3 * (time.perf_counter() - began))
    return spans


if __name__ == "__main__":
    paths = {"unary": unary, "session": session, "shared": shared, "openpi": openpi, "bare": bare}
    stamps = Stamps()
    handlers = {"http": probe_http, "grpc": probe_grpc, "stamp": stamps.client, "stamps": stamps.take}
    work(Robots(paths).handlers() | handlers)
