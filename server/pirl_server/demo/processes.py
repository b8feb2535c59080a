"""Processes of the demo: one log per child, and all descendants ended within seconds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from pirl_server.process_reaper import END, reaped

GRACE_S = 4.5


class Processes:
    """Starts commands, each below a reaper; leaving the context ends them: SIGTERM, then SIGKILL.

    What they started themselves ends with them (a job of a killed server), and all of it ends when this process is
    killed. Use it from a thread that outlives the context.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command whose output goes to `logs/NAME.log`."""
        with _uninterrupted(), self.log(name).open("ab") as output:
            self._running[name] = subprocess.Popen(
                reaped(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        return self._running[name]

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
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for process in self._running.values():
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(END)
                process.wait()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay SIGINT and SIGTERM: an exception while a process starts would leave it running, and unknown.

    Python runs handlers in the main thread alone; elsewhere there is nothing to delay.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
