"""`pirl serve` as a process with a bound on open files, a robot with shared memory, and people who misbehave."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pirl_server
from pirl_contract import Contract, Observation
from pirl_contract.client import PolicyClient
from pirl_server.paths import TOKENS
from pirl_server.security.tokens import TokenFile

BASE = Path(pirl_server.__path__[0]) / "checkpoints" / "pushcube-base"
LIMITED = (
    "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_NOFILE, (n, n));"
    " os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
START_S = 240.0
HALF_A_REQUEST = b"POST /v1/emergency-stop HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with contextlib.ExitStack() as held:
        made = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in made]


class Whole:
    """A server with tokens: `operator`, `trainer` and `robot` are the texts of one of each scope."""

    def __init__(self, root: Path, descriptors: int = 1024, *options: str) -> None:
        self.grpc_port, self.rest_port, self.stop_port, self.openpi_port = free_ports(4)
        self.tokens = TokenFile(root / TOKENS)
        self.operator, self.trainer, self.robot = (
            self.tokens.create(scope, [scope]) for scope in ("operator", "trainer", "robot")
        )
        self.job, self.listed = "", Counter[int]()
        self.log, self.root = root / "log.txt", root
        command = [
            sys.executable,
            "-c",
            LIMITED,
            str(descriptors),
            "-m",
            "pirl_contract.commands.cli",
            "serve",
            str(BASE),
        ]
        command += ["--root", str(root), "--grpc-port", str(self.grpc_port), "--rest-port", str(self.rest_port)]
        command += ["--openpi-port", str(self.openpi_port), *options]
        if "--stop-port" not in options:
            command += ["--stop-port", str(self.stop_port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.get("/readyz")[0] == 200:
                    return
            time.sleep(0.05)
        self.process.kill()
        raise RuntimeError(f"the server does not start: {self.log.read_text()[-2000:]}")

    def call(
        self, method: str, path: str, token: str, body: bytes = b"", port: int = 0, timeout_s: float = 60.0
    ) -> tuple[int, bytes]:
        """Make one REST call over a connection of its own; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.rest_port, timeout=timeout_s)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str, token: str = "") -> tuple[int, bytes]:
        """Get from the REST port."""
        return self.call("GET", path, token)

    def stop(self, robot_id: str, port: int = 0, timeout_s: float = 60.0) -> tuple[int, float]:
        """Press the emergency stop, at the stop port unless told otherwise; return status and seconds."""
        path, began = f"/v1/robots/{robot_id}/emergency-stop", time.monotonic()
        status, _ = self.call("POST", path, self.operator, b'{"reason": "flood"}', port or self.stop_port, timeout_s)
        return status, time.monotonic() - began

    def memory(self, name: str = "VmRSS") -> int:
        """Return bytes of the process: VmRSS now, VmHWM the most so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def descriptors(self) -> int:
        """Return how many files the process has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Robot:
    """Asks for chunks over a session, images in shared memory, until it is closed."""

    def __init__(self, server: Whole, robot_id: str, rate_hz: float = 10.0) -> None:
        self.answered, self.stops, self.failures = 0, 0, list[str]()
        self.seconds: list[float] = []
        self.client = PolicyClient(
            f"127.0.0.1:{server.grpc_port}", robot_id, 30.0, encoding="shared_memory", token=server.robot,
            on_event=self._event,
        )  # fmt: skip
        info = self.client.info()
        self._observation = observation(info.contract, info.instructions[0], robot_id)
        self._period, self._over = 1 / rate_hz, threading.Event()
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._over.set()
        self._thread.join()
        self.client.close()

    def clear(self) -> None:
        """Count from here."""
        self.answered, self.stops = 0, 0
        self.failures, self.seconds = [], []

    def _drive(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self.client.infer(self._observation)
                self.answered += 1
            except (OSError, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.seconds.append(time.monotonic() - began)
            self._over.wait(max(0.0, began + self._period - time.monotonic()))

    def _event(self, event: Any) -> None:
        self.stops += event.WhichOneof("event") == "emergency_stop"


def observation(contract: Contract, instruction: str, robot_id: str) -> Observation:
    """Make any observation that fits."""
    images = {each.name: np.zeros((each.height, each.width, 3), np.uint8) for each in contract.cameras}
    return Observation(images, np.zeros(contract.state_dim, np.float32), instruction, robot_id, time.time_ns())


class HalfOpen:
    """Connections that send a beginning and no more, as many as are let in; one that is closed is made again."""

    def __init__(self, port: int, count: int, beginning: bytes = HALF_A_REQUEST, again: bool = True) -> None:
        self.opened, self.closed, self.count = 0, 0, count
        self._port, self._beginning, self._again = port, beginning, again
        self._over = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    @property
    def held(self) -> int:
        """How many are open at this end."""
        return len(self._selector.get_map() or ())

    def close(self) -> None:
        """Let go of all."""
        self._over.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _hold(self) -> None:
        while not self._over.is_set():
            missing = self.count - self.held if self._again or self.opened < self.count else 0
            for _ in range(min(missing, 20)):
                self._open()
            for key, _ in self._selector.select(0.02):
                self._read(key.fileobj)

    def _open(self) -> None:
        try:
            made = socket.create_connection(("127.0.0.1", self._port), 1)
            made.sendall(self._beginning)
        except OSError:
            return
        made.setblocking(False)
        self._selector.register(made, selectors.EVENT_READ)
        self.opened += 1

    def _read(self, made: Any) -> None:
        try:
            data = made.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(made)
            made.close()
            self.closed += 1


@contextlib.contextmanager
def many_files(count: int = 8192) -> Iterator[None]:
    """Let this process, which plays the attackers, have that many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(hard, count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def raw(port: int, head: str, body: bytes = b"", timeout_s: float = 60.0) -> tuple[int, dict[str, Any], int]:
    """Send a head and a body by hand, reading as soon as there is something; return status, problem, bytes sent."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as made:
        made.sendall(head.encode())
        sent, view = 0, memoryview(body)
        made.setblocking(False)
        until = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(made, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while sent < len(body) and time.monotonic() < until:
                ready = selector.select(1.0)
                if any(events & selectors.EVENT_READ for _, events in ready):
                    break
                with contextlib.suppress(BlockingIOError):
                    sent += made.send(view[sent : sent + 65536])
        made.settimeout(timeout_s)
        answer = http.client.HTTPResponse(made)
        answer.begin()
        return answer.status, json.loads(answer.read()), sent
