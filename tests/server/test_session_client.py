"""The clients over sessions against the real service: events, lost servers, half-open connections, many robots."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from patience import Patience, patient, until

from pirl_contract import Contract, Observation, Policy, StepOutcome
from pirl_contract.async_client import AsyncPolicyClient
from pirl_contract.client import PolicyClient
from pirl_contract.conformance import PolicyConformance
from pirl_contract.wire import grpc_options
from pirl_server.serving.engine import Engine
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

Observe = Callable[[int], Observation]
WAIT_S = 20.0


class TestUnaryClientKeepsThePolicyContract(PolicyConformance):
    @pytest.fixture(autouse=True)
    def _world(self, service: Any, observe: Observe) -> Iterator[None]:
        self._address, self._observe = service.address, observe
        self._client = PolicyClient(service.address, "arm-1", patient(20.0), transport="unary", encoding="rgb8")
        yield
        self._client.close()

    def make_policy(self) -> Policy:
        self._client.info()
        return self._client

    def make_observation(self) -> Observation:
        return self._observe(0)


def eventually(call: Callable[[], Any]) -> Any:
    """What the call gives once the connection is back; each failure on the way is a ConnectionError."""
    patience = Patience(WAIT_S)
    while True:
        try:
            return call()
        except ConnectionError:
            assert patience.left_s > 0
            time.sleep(0.02)


def test_a_stop_from_the_server_reaches_a_robot_that_is_not_asking(service: Any) -> None:
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client = PolicyClient(service.address, "arm-7", patient(20.0), on_event=heard.put)
    client.info()
    assert service.attendance.emergency_stop("arm-7", "smoke", "ada") == 1
    assert heard.get(timeout=patient(WAIT_S)).emergency_stop.reason == "smoke"
    client.close()
    until(lambda: [each.sessions for each in service.attendance.list()] == [0])


def test_the_episode_goes_on_after_the_server_was_gone(service: Any, contract: Contract, observe: Observe) -> None:
    """Events reach the robot again, too, without its asking anything."""
    one = PolicyService(service.engine, service.recorder, explore=False)
    server, port = start_grpc(one, "127.0.0.1:0")
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client = PolicyClient(f"127.0.0.1:{port}", "arm-1", patient(20.0), on_event=heard.put)
    client.start_episode(contract, observe(0).instruction)
    chunk = client.infer(observe(0))
    stopped = server.stop(0.3)
    assert heard.get(timeout=patient(WAIT_S)).HasField("draining")
    stopped.wait()
    with pytest.raises(ConnectionError):
        client.infer(observe(1))
    two = PolicyService(service.engine, service.recorder, explore=False)
    server, _ = start_grpc(two, f"127.0.0.1:{port}")
    until(lambda: any(each.sessions for each in two.attendance.list()))
    assert two.attendance.emergency_stop("arm-1", "again", "ada") == 1
    assert heard.get(timeout=patient(WAIT_S)).emergency_stop.reason == "again"
    step = StepOutcome(chunk.chunk_id, 0, np.zeros(2, np.float32), np.zeros(3, np.float32), time_ns=1)
    assert eventually(lambda: client.report_outcomes([step])) == 1
    assert eventually(lambda: client.report_outcomes([step])) == 1, "told twice, counted once"
    assert client.end_episode("failure", "operator", "operator").steps == 1
    client.close()
    server.stop(None).wait()


@pytest.mark.parametrize("transport", ["session", "unary"])
def test_eight_robots_at_once_get_their_own_chunks(
    service: Any, make_policy: Any, observe: Observe, transport: Any
) -> None:
    ids: list[str] = []

    def drive(robot_id: str) -> None:
        client = PolicyClient(service.address, robot_id, patient(20.0), transport=transport)
        client.info()
        for number in range(20):
            chunk = None
            while chunk is None:
                try:
                    chunk = client.infer(observe(number))
                except TimeoutError:  # four may wait here; the others are told to come back
                    time.sleep(client.retry_after_s or 0.001)
            assert chunk.start_time_ns == 1000 + number
            ids.append(chunk.chunk_id)
        client.close()

    drivers = [threading.Thread(target=drive, args=(f"arm-{number}",)) for number in range(8)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert len(set(ids)) == 8 * 20


def test_a_reply_that_came_too_late_is_not_taken_for_the_next(service: Any, make_policy: Any, observe: Observe) -> None:
    hold, armed = threading.Event(), threading.Event()
    client = service.connect()
    service.engine.swap(make_policy(version="v2", before=lambda: armed.is_set() and hold.wait(patient(WAIT_S))))
    armed.set()
    client.timeout_s = 0.1
    with pytest.raises(TimeoutError, match=r"0\.1 s"):
        client.infer(observe(1))
    armed.clear()
    client.timeout_s = WAIT_S
    hold.set()
    assert client.infer(observe(2)).start_time_ns == 1002


class Proxy:
    """Forwards bytes between a client and a server until it is told to swallow them: a cable that was pulled."""

    def __init__(self, port: int) -> None:
        self._port, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._swallow, self._sockets = threading.Event(), [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        self._swallow.set()

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self._swallow.is_set():
                    sink.sendall(data)
        except OSError:
            return


def test_a_pulled_cable_is_noticed_by_both_ends(
    service: Any, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No packet says that it is over: only keepalive can. In the meantime others are served."""
    monkeypatch.setattr(grpc_options, "KEEPALIVE_S", 0.5)
    monkeypatch.setattr(grpc_options, "KEEPALIVE_TIMEOUT_S", 0.5)
    quick = PolicyService(service.engine, service.recorder, explore=False)
    server, port = start_grpc(quick, "127.0.0.1:0")
    proxy = Proxy(port)
    client = PolicyClient(f"127.0.0.1:{proxy.port}", "arm-1", patient(WAIT_S), encoding="rgb8")
    other = PolicyClient(f"127.0.0.1:{port}", "arm-2", patient(WAIT_S))
    client.info(), other.info()
    assert client.infer(observe(0)).chunk_id
    proxy.pull()
    with pytest.raises(ConnectionError):
        client.infer(observe(1))
    assert other.infer(observe(2)).chunk_id
    until(lambda: [each.sessions for each in quick.attendance.list()] == [0, 1])
    client.close(), other.close(), proxy.close()
    server.stop(None).wait()


def test_labels_while_it_runs_and_after(service: Any, contract: Contract, observe: Observe) -> None:
    client = service.connect()
    episode_id = client.start_episode(contract, observe(0).instruction)
    chunk = client.infer(observe(0))
    client.report_outcomes([StepOutcome(chunk.chunk_id, 0, np.zeros(2, np.float32), np.zeros(3, np.float32))])
    assert client.label_episode("failure", "operator", "dropped it") == "unlabeled"
    client.end_episode("unlabeled", "", "operator")
    assert service.store.open(episode_id).info.metadata["label_note"] == "dropped it"
    assert service.store.summary(episode_id).success is False
    assert client.label_episode("success", "operator", episode_id=episode_id) == "failure"
    assert service.store.open(episode_id).info.success is True
    assert client.label_episode("unlabeled", "", episode_id=episode_id) == "success"
    assert service.store.summary(episode_id).success is None
    with pytest.raises(ValueError, match="label_source"):
        client.label_episode("success", "gossip", episode_id=episode_id)


def test_the_clocks_of_one_machine_agree(service: Any, observe: Observe) -> None:
    client = service.connect()
    client.infer(observe(0))
    now = time.monotonic_ns()
    best = client.clock.best()
    assert abs(best.offset_ns) <= best.error_ns(now)


def test_the_asyncio_client_speaks_the_same(service: Any, contract: Contract, observe: Observe) -> None:
    heard: list[Any] = []

    async def drive() -> None:
        client = AsyncPolicyClient(service.address, "arm-1", patient(20.0), on_event=heard.append)
        assert (await client.info()).policy_version == "v1"
        episode_id = await client.start_episode(contract, observe(0).instruction)
        chunk = await client.infer(observe(0))
        step = StepOutcome(chunk.chunk_id, 0, np.zeros(2, np.float32), np.zeros(3, np.float32))
        assert await client.report_outcomes([step]) == 1
        service.attendance.emergency_stop(None, "all", "ada")
        assert await client.label_episode("success", "operator") == "unlabeled"
        assert (await client.end_episode("unlabeled", "", "operator")).steps == 1
        assert service.store.summary(episode_id).success is True
        with pytest.raises(ValueError, match="no open episode"):
            await client.report_outcomes([step])
        await client.close()

    asyncio.run(drive())
    assert heard[0].emergency_stop.reason == "all"


def test_health_and_reflection_answer_while_the_device_is_held(
    service: Any, make_policy: Any, observe: Observe
) -> None:
    hold, armed = threading.Event(), threading.Event()
    service.engine.swap(make_policy(version="v2", before=lambda: armed.is_set() and hold.wait(patient(WAIT_S))))
    armed.set()
    client = service.connect()
    asking = threading.Thread(target=lambda: client.infer(observe(0)))
    asking.start()
    with grpc.insecure_channel(service.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "pirl.v1.PolicyService"):
            assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == 1
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask])))
    names = {each.name for each in listed.list_services_response.service}
    assert {"pirl.v1.PolicyService", "grpc.health.v1.Health"} <= names
    hold.set()
    asking.join()


def test_health_is_not_serving_before_a_policy_and_while_draining(service: Any, make_policy: Any) -> None:
    empty = Engine()
    server, port = start_grpc(PolicyService(empty, service.recorder, explore=False), "127.0.0.1:0")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watched = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == 2
        assert health.Check(health_pb2.HealthCheckRequest()).status == 2
        empty.swap(make_policy())
        assert health.Check(health_pb2.HealthCheckRequest()).status == 1
        assert next(watched).status == 1
        stopped = server.stop(WAIT_S)
        assert next(watched).status == 2
        watched.cancel()
    stopped.wait(patient(WAIT_S))
    empty.close()
