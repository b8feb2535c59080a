"""One job's process group: started apart from the server's, ended whole, recognised again after a restart."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_S = 0.05
SERVER = "PIRL_JOB_SERVER"
"""environment variable of a job: the id of the process that started it"""


class JobProcess:
    """A command in its own session; nobody but this object waits for it."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, SERVER: str(os.getpid())},
            )
        self.pid = self._process.pid
        self.started = process_start(self.pid)
        self.stopped = False
        """true once it was told to end"""

    def wait(self, grace_s: Callable[[], float | None]) -> int:
        """Return the exit status once the process has ended and its whole group with it.

        When `grace_s` is no longer None: SIGTERM to the group, then SIGKILL so many seconds later, or earlier when the
        grace has become shorter meanwhile. A negative status is the signal's number.
        """
        kill_at = math.inf
        while not self._has_ended():
            grace = grace_s()
            if grace is not None:
                kill_at = min(kill_at, time.monotonic() + grace)
                if not self.stopped:
                    self.stopped = True
                    os.killpg(self.pid, signal.SIGTERM)
            if time.monotonic() > kill_at:
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(POLL_S)
        # while the leader is unreaped its id cannot be reused: what is left of the group is really ours
        os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def process_start(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot (field 22 of /proc/PID/stat), None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def end_orphan(pid: int, started: int | None) -> bool:
    """Kill the group of a job that outlived its server; False when that very process is gone."""
    if started is None or process_start(pid) != started:
        return False
    os.killpg(pid, signal.SIGKILL)
    return True
