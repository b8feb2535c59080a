"""`pirl serve` with 1,024 open files beside people who open connections and bodies that they never complete."""

from __future__ import annotations

import json
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import Patience, patient, until

pytest.importorskip("torch", reason="torch is not installed: no policy can be served here")
sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "doors_run"))

from whole import HalfOpen, Robot, Whole, many_files, raw

PATIENCE_S = 120.0
ATTACKERS = 1100
MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    made = Whole(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture
def robot(server: Whole) -> Iterator[Robot]:
    made = Robot(server, "arm-1")
    until(lambda: made.answered > 0, "no chunk")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("door", ["rest", "stop", "openpi", "grpc"])
def test_half_open_connections_starve_nobody(server: Whole, robot: Robot, door: str) -> None:
    port = getattr(server, f"{door}_port")
    before = server.log.stat().st_size
    with many_files():
        attack = HalfOpen(port, ATTACKERS, b"" if door == "grpc" else b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        try:
            until(lambda: attack.opened >= ATTACKERS, "the attackers cannot connect")
            answered = robot.answered
            stops = [server.stop("arm-1") for _ in range(3)]
            assert [status for status, _ in stops] == [202] * 3
            print(f"{door}: stops in {[round(1000 * seconds) for _, seconds in stops]} ms, {attack.held} held")
            assert server.stop("arm-1", server.rest_port)[0] == 202
            until(lambda: robot.answered >= answered + 10, "the robot gets no chunks")
            if door != "grpc":
                other = Robot(server, "arm-2")
                until(lambda: other.answered > 0, "a new robot gets no chunk")
                other.close()
                assert other.failures == []
            assert server.descriptors() < 1024
            assert attack.held > 0, "nobody attacked meanwhile"
        finally:
            attack.close()
    assert robot.failures == []
    assert robot.stops >= 4
    assert server.log.stat().st_size - before < MIB


def head(server: Whole, token: str, length: int, path: str = "/v1/jobs") -> str:
    words = f"Host: 127.0.0.1:{server.rest_port}\r\nContent-Type: application/json\r\n"
    return f"POST {path} HTTP/1.1\r\n{words}Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"


def test_a_hundred_mebibytes_are_not_read(server: Whole, robot: Robot) -> None:
    body, before = b"[" + b" " * (100 * MIB - 1), server.memory()
    for token, status, kind in (
        (server.trainer, 413, "content-too-large"), (server.robot, 403, "forbidden"), ("", 401, "unauthenticated"),
    ):  # fmt: skip
        got, problem, sent = raw(server.rest_port, head(server, token, len(body)), body)
        assert (got, problem["type"]) == (status, f"/problems/{kind}")
        assert len(json.dumps(problem)) < 1000
        assert sent < 16 * MIB, "the answer came only when most of the body was read"
    assert server.memory("VmHWM") - before < 50 * MIB
    assert robot.failures == []


def test_who_may_not_call_is_answered_before_the_body_comes(server: Whole) -> None:
    for token, status in ((server.robot, 403), ("", 401), (server.trainer, 413)):
        assert raw(server.rest_port, head(server, token, 2 * MIB))[0] == status


def test_a_stop_is_answered_while_large_and_slow_bodies_are_held(server: Whole, robot: Robot) -> None:
    with socket.create_connection(("127.0.0.1", server.rest_port), patient(60)) as slow:
        slow.sendall(head(server, server.trainer, 1000).encode() + b"[")
        assert server.stop("arm-1")[0] == server.stop("arm-1", server.rest_port)[0] == 202
        until(lambda: robot.stops >= 2, "the robot was not told")
        assert select.select([slow], [], [], 0)[0] == [], "it was answered before the stop"
        answer = dribble(slow)
    assert b" 408 " in answer
    assert b"request-timeout" in answer


def dribble(slow: socket.socket) -> bytes:
    """Send a byte a second until the server has had enough; return all that it answered, to its end."""
    slow.settimeout(1.0)
    patience = Patience(PATIENCE_S)
    while patience.left_s > 0:
        slow.sendall(b" ")
        if select.select([slow], [], [], 1.0)[0]:
            slow.settimeout(patient(PATIENCE_S))
            return b"".join(iter(lambda: slow.recv(65536), b""))
    raise AssertionError("it reads a byte a second for ever")


def test_chunks_without_a_length_are_refused_before_the_token_is_looked_at(server: Whole) -> None:
    status, problem, _ = raw(
        server.rest_port, "POST /v1/jobs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert status == 400
    assert "Content-Length" in problem["detail"]


def test_the_stop_port_takes_stops_only(server: Whole) -> None:
    assert server.call("GET", "/healthz", "", port=server.stop_port)[0] == 200
    assert server.call("GET", "/v1/robots", server.operator, port=server.stop_port)[0] == 404
    assert server.call("POST", "/v1/emergency-stop", "", port=server.stop_port)[0] == 401
    assert server.call("POST", "/v1/emergency-stop", server.robot, port=server.stop_port)[0] == 403
    assert server.call("POST", "/v1/emergency-stop", server.trainer, port=server.stop_port)[0] in (202, 404)
    assert server.call("POST", "/v1/emergency-stop", server.trainer, b" " * 20_000, server.stop_port)[0] == 413


def test_x_forwarded_for_is_not_believed(server: Whole) -> None:
    for _ in range(3):
        status, _, _ = raw(server.rest_port, "GET /v1/jobs HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
        assert status == 401
    assert "192.0.2.7" not in (server.root / "models" / "audit.jsonl").read_text()
