"""Where a server's runner works: in a thread of this process, or in a process of its own, which is kept alive.

The process stands below a reaper: it ends with this one, however that ended, and its jobs with it. When it dies alone
another one takes its place, and its jobs continue from their checkpoints.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pirl_server.jobs.executor import LocalExecutor
from pirl_server.jobs.runner import Graces, Runner
from pirl_server.jobs.runner_process import arguments
from pirl_server.jobs.store import JobStore
from pirl_server.process_reaper import END, reaped

FIRST_RESTART_S, RESTART_S = 0.2, 5.0
END_S = 10.0
"""that a runner has to end beyond the grace of its jobs"""
_LOG = logging.getLogger(__name__)


class RunnerHost(Protocol):
    """A runner that works from the construction on. Any thread."""

    @property
    def trouble(self) -> str:
        """What keeps jobs from being run; empty: nothing."""

    @property
    def damaged(self) -> dict[str, str]:
        """Ids of jobs that the runner could not read, and why, where it does not share the server's store."""

    def wake(self) -> None:
        """Let it look at the queue now. Never waits."""

    def cancel(self, job_id: str) -> None:
        """Stop a job whose cancelling the disk could not take."""

    def close(self) -> None:
        """Stop what runs, and return when it is gone."""


class RunnerThread:
    """A runner in this process."""

    def __init__(
        self,
        root: Path,
        store: JobStore,
        command: Sequence[str],
        devices: Sequence[str],
        graces: Graces,
        put_away: Path,
    ) -> None:
        self._reported, self._closing = "", False
        self.damaged = dict[str, str]()
        self._runner = Runner(root, store, LocalExecutor(command, root), devices, graces, put_away, self._report)
        self._thread = threading.Thread(target=self._runner.run, name="jobs", daemon=True)
        self._thread.start()
        self.wake, self.cancel = self._runner.wake, self._runner.cancel

    @property
    def trouble(self) -> str:
        """What keeps jobs from being run."""
        dead = not self._thread.is_alive() and not self._closing
        return "supervisor thread ended: restart the server" if dead else self._reported

    def close(self) -> None:
        """Stop what runs, and return when it is gone."""
        self._closing = True
        self._runner.close()
        self._thread.join()

    def _report(self, trouble: str) -> None:
        self._reported = trouble


class RunnerProcess:
    """A runner in a process of its own, started again whenever it ends."""

    def __init__(
        self, root: Path, command: Sequence[str], devices: Sequence[str], graces: Graces, put_away: Path
    ) -> None:
        self.trouble, self.damaged = "", dict[str, str]()
        self._words = arguments(root.resolve(), put_away.resolve(), tuple(devices), graces, tuple(command))
        self._graces = graces
        self._closing = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        # a thread of its own, which outlives the process: that one ends with the thread that started it
        self._thread = threading.Thread(target=self._keep, name="jobs", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the runner's reaper."""
        return None if self._process is None else self._process.pid

    def wake(self) -> None:
        """Let it look at the queue: it does so by itself many times a second."""

    def cancel(self, job_id: str) -> None:
        """Stop a job whose cancelling the disk could not take."""
        self._send(lambda process: print(f"cancel {job_id}", file=process.stdin, flush=True))

    def close(self) -> None:
        """Stop what runs, and return when it is gone."""
        self._closing.set()
        self._send(lambda process: process.send_signal(signal.SIGTERM))
        self._thread.join(self._graces.close_s + END_S)
        self._send(lambda process: process.send_signal(END))
        self._thread.join()

    def _send(self, send: Callable[[subprocess.Popen[str]], object]) -> None:
        with self._lock, suppress(OSError, ValueError):
            if self._process is not None and self._process.poll() is None:
                send(self._process)

    def _keep(self) -> None:
        pause_s = FIRST_RESTART_S
        while not self._closing.is_set():
            try:
                code = self._run()
            except OSError as error:
                code, self.trouble = 1, f"the runner of jobs can't be started: {error}"
            if self._closing.is_set():
                return
            self.trouble = self.trouble or f"the runner of jobs ended with status {code}: another one is started"
            _LOG.error("%s", self.trouble)
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, RESTART_S)

    def _run(self) -> int:
        with self._lock:
            if self._closing.is_set():
                return 0
            self._process = process = subprocess.Popen(
                reaped(self._words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                self.trouble, self.damaged = str(said["trouble"]), dict(said["damaged"])
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return code
