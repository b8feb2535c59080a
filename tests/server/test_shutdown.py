"""SIGTERM and SIGINT to the real server, with everything open that can be."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from patience import patient
from process_tree import WAIT_S, left_after, tree, until
from serve_process import CHECKPOINT, CONTRACT, INSTRUCTION, ServeProcess, free_port, observe

from pirl_contract import StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server import shutdown
from pirl_server.app import build, serve
from pirl_server.config.serve import ServeConfig
from pirl_server.episodes.store import EpisodeStore
from pirl_server.registry.versions import Registry
from pirl_server.root_lock import root_lock
from pirl_server.shutdown import Signals, Stopping


class Driven:
    """A robot in the middle of an episode, with one step reported."""

    def __init__(self, address: str, robot_id: str = "arm-1") -> None:
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.robot_id = robot_id
        self.client = PolicyClient(address, robot_id, patient(30.0), on_event=self.events.put)
        self.client.start_episode(CONTRACT, INSTRUCTION)
        chunk = self.client.infer(observe(robot_id))
        state = np.zeros(CONTRACT.state_dim, np.float32)
        step = StepOutcome(chunk.chunk_id, 0, np.zeros(CONTRACT.action_dim, np.float32), state, time_ns=1)
        assert self.client.report_outcomes([step]) == 1

    def draining(self) -> float:
        """Wait for the event; return the seconds it names."""
        event = self.events.get(timeout=patient(WAIT_S))
        assert event.HasField("draining")
        return float(event.draining.grace_s)


class Stream(threading.Thread):
    """Reads a job's events to the end."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.begun, self.broken = url, threading.Event(), ""

    def run(self) -> None:
        try:
            with httpx.stream("GET", self.url, timeout=None) as answer:
                for _ in answer.iter_lines():
                    self.begun.set()
        except httpx.TransportError as error:
            self.broken = repr(error)


def silent_peers(server: ServeProcess, openpi_port: int) -> list[socket.socket]:
    """A request that is never finished, and a WebSocket that does not answer the end of its connection."""
    half = socket.create_connection(("127.0.0.1", server.rest_port))
    half.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    deaf = socket.create_connection(("127.0.0.1", openpi_port))
    deaf.sendall(
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert deaf.recv(4096).startswith(b"HTTP/1.1 101")
    return [half, deaf]


def grpc_health(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=patient(WAIT_S)).status)


@pytest.mark.slow
def test_a_signal_drains_stops_the_job_and_publishes(tmp_path: Path) -> None:
    openpi_port, root = free_port(), tmp_path / "root"
    root.mkdir(mode=0o755)
    with ServeProcess(root, "--drain-seconds", "3000", "--openpi-port", str(openpi_port)) as server:
        robot = Driven(server.wait_until_serving().address)
        job = server.start_endless_job()
        stream = Stream(f"http://127.0.0.1:{server.rest_port}/v1/jobs/{job}/events")
        stream.start()
        assert stream.begun.wait(patient(WAIT_S))
        until(lambda: server.job(job)["status"] == "running" and len(tree(server.process.pid)) >= 2)
        peers, started = silent_peers(server, openpi_port), tree(server.process.pid)
        assert server.web.get("/readyz").status_code == 200
        assert grpc_health(server.address) == health_pb2.HealthCheckResponse.SERVING

        server.process.send_signal(signal.SIGTERM)
        assert robot.draining() == 3000.0
        ready = server.web.get("/readyz")
        assert (ready.status_code, ready.json()["type"]) == (503, "/problems/stopping")
        assert grpc_health(server.address) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert robot.client.infer(observe("arm-1")).policy_version, "still answered"
        late = PolicyClient(server.address, "arm-2", patient(30.0), on_event=robot.events.put)
        assert late.info().policy_version
        assert robot.draining() == 3000.0, "one that comes during the drain is notified too"

        assert stream.is_alive()
        for closing in (robot.client, late):
            closing.close()  # nobody is left to drain for; the episode is still open
        assert server.process.wait(patient(WAIT_S)) == 0, server.log.read_text()
        stream.join(patient(WAIT_S))
        assert (stream.is_alive(), stream.broken) == (False, "")
        assert left_after(started) == set()
        assert (server.job(job)["status"], server.job(job)["causes"]) == (
            "queued",
            ["attempt 1: the server was stopped"],
        )
        (published,) = EpisodeStore(server.root / "episodes").list()
        assert (published.robot_id, published.steps, published.calls, published.end_reason) == ("arm-1", 1, 2, "fault")
        assert EpisodeStore(server.root / "episodes").open(published.id)
        for peer in peers:
            peer.close()
    found = [root, *root.rglob("*")]
    assert {"log.txt", "audit.jsonl", "aliases.json", "lineage.json", "staging"} <= {path.name for path in found}
    assert [path for path in found if path.stat().st_mode & 0o077] == [], "open to other users"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def test_each_signal_drains_and_ends_with_its_own_status(number: int, status: int) -> None:
    class Signalled:
        should_exit = False

        def run(self) -> None:
            os.kill(os.getpid(), number)
            until(lambda: self.should_exit)

    listener, stopping = Signalled(), Stopping()
    with Signals() as signals:
        assert signals.serve(listener, stopping, 0.0) == status
    assert stopping.draining
    assert stopping.closing
    assert listener.should_exit


def test_a_second_signal_ends_it_at_once_and_its_job_too(tmp_path: Path) -> None:
    with ServeProcess(tmp_path / "root", "--drain-seconds", "3000") as server:
        robot = Driven(server.wait_until_serving().address)
        job = server.start_endless_job()
        until(lambda: server.job(job)["status"] == "running" and len(tree(server.process.pid)) >= 2)
        started = tree(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        assert robot.draining() == 3000.0
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(patient(WAIT_S)) == 130
        assert left_after(started) == set()
        robot.client.close()


@pytest.mark.slow
def test_a_second_server_on_a_root_changes_nothing_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with ServeProcess(root) as first:
        job = first.wait_until_serving().start_endless_job()
        until(lambda: first.job(job)["status"] == "running" and len(tree(first.process.pid)) >= 2)
        (writing := root / "episodes" / "staging" / "abc").mkdir()
        before = (root / "models" / "audit.jsonl").read_bytes()
        with ServeProcess(root) as second:
            assert second.process.wait(patient(WAIT_S)) == 2
            words = second.log.read_text()
        assert str(root) in words
        assert f"process id {first.process.pid}" in words
        assert "--root" in words
        assert "Traceback" not in words
        assert writing.is_dir(), "its staging was swept"
        assert (first.job(job)["status"], (root / "models" / "audit.jsonl").read_bytes()) == ("running", before)
        assert (root / ".server.lock").stat().st_mode & 0o777 == 0o600

        started = tree(first.process.pid)
        assert len(started) >= 2, "the job's reaper and the job"
        first.process.kill()
        first.process.wait()
        assert left_after(started) == set()
    with root_lock(root):
        assert writing.is_dir(), "the kernel has freed it, and nobody has been here since"


def test_the_drain_ends_with_the_last_robot(tmp_path: Path) -> None:
    with build(ServeConfig(CHECKPOINT, tmp_path, grpc_port=(port := free_port()))) as (api, _):
        robot = Driven(f"127.0.0.1:{port}")
        draining = threading.Thread(target=api.state.services.stopping.drain, args=(3000.0,), daemon=True)
        draining.start()
        assert robot.draining() == 3000.0
        draining.join(0.5)
        assert draining.is_alive(), "it is still connected"
        robot.client.close()
        draining.join(patient(WAIT_S))
        assert not draining.is_alive()


class Clock:
    """Time that passes only while somebody sleeps; `seen` is whether the server was unready each time."""

    def __init__(self, stopping: Stopping) -> None:
        self.now, self.seen, self._stopping = 0.0, list[bool](), stopping

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.seen.append(self._stopping.draining)


@pytest.mark.parametrize(
    ("busy", "drain_s", "least", "most"),
    [
        (False, 3000.0, shutdown.UNREADY_S, shutdown.UNREADY_S + 0.2),  # nobody is waited for, but readiness is seen
        (False, 0.1, 0.1, 0.2),
        (False, 0.0, 0.0, 0.0),
        (True, 30.0, 30.0, 30.1),
    ],
)
def test_the_server_is_unready_for_a_while_before_its_ports_close(
    monkeypatch: pytest.MonkeyPatch, busy: bool, drain_s: float, least: float, most: float
) -> None:
    told: list[float] = []
    stopping = Stopping(told.append, lambda: busy)
    clock = Clock(stopping)
    monkeypatch.setattr(shutdown, "time", clock)
    stopping.drain(drain_s)
    assert told == [drain_s]
    assert least <= clock.now <= most
    assert all(clock.seen)
    assert (stopping.draining, stopping.closing) == (True, False)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_drain_of_no_length_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match="drain_seconds"):
        serve(ServeConfig(CHECKPOINT, tmp_path, drain_seconds=seconds))


def test_a_signal_while_it_starts_is_a_clean_end(tmp_path: Path) -> None:
    with ServeProcess(tmp_path / "root") as server:
        until((tmp_path / "root" / ".server.lock").exists)
        server.process.terminate()
        assert server.process.wait(patient(WAIT_S)) == 0
        assert "Traceback" not in server.log.read_text()


def test_jobs_and_commands_need_no_lock(tmp_path: Path) -> None:
    """They share the root with its server: whoever holds it, others read and add."""
    with root_lock(tmp_path):
        child = subprocess.Popen(["sleep", "600"])  # what a server starts must not hold the root after it
        Registry(tmp_path / "models").add("v1", CHECKPOINT, CONTRACT)
        with pytest.raises(ValueError, match="is in use by the server with process id"), root_lock(tmp_path):
            pass
    with root_lock(tmp_path):
        child.kill()
        child.wait()
