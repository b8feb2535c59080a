"""Processes of the demo: each child with its own log, all of them and theirs gone within seconds of the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

GRACE_S = 4.5
POLL_S = 0.02
MARK = "PIRL_DEMO_RUN"
"""environment variable that every process of a run inherits, so that it is known whoever its parent is by now"""


class Processes:
    """Starts commands in process groups of their own; leaving the context ends them: SIGTERM, then SIGKILL.

    What they started themselves ends with them, also when one had no time to see to that (a job of a killed server).
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        self._environment = {**os.environ, **environment, MARK: self._mark.partition("=")[2]}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command whose output goes to `logs/NAME.log`."""
        with self.log(name).open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        self._running[name] = process
        return process

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Raise RuntimeError, with the last line of its log, when a process has ended that should not have."""
        for name, process in self._running.items():
            if process.poll() is not None:
                lines = self.log(name).read_text(errors="replace").strip().splitlines() or ["(its log is empty)"]
                raise RuntimeError(f"{name} ended with status {process.returncode}: {lines[-1]}")

    def finished(self, name: str) -> int | None:
        """Exit status of a process that is meant to end, None while it runs; forgets it once it has ended."""
        status = self._running[name].poll()
        if status is not None:
            del self._running[name]
        return status

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):  # whoever is left is killed next
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        while left := _carrying(self._mark):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # the whole group has ended already


def _carrying(mark: str) -> list[int]:
    """Ids of the live processes that were given this variable; a zombie has no environment any more."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
