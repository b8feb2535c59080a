"""One job's processes: started below a reaper, ended together, recognised after a restart."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from pirl_server.jobs.job_log import bound
from pirl_server.process_reaper import END, reaped


class JobProcess:
    """A command below a reaper, in a session of their own; only this object waits for it.

    `pid` is the reaper's: it and all that the command started are gone when this process or the command is, however
    that ended. The thread that makes this object must live until `poll` has returned a status. `keeps` are open files
    that stay open as long as any of these processes lives, `environment` is added to this process's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        keeps: Sequence[int] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                reaped(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=keeps,
                env=os.environ | environment,
            )
        self.pid = self._process.pid
        self.started = process_start(self.pid)
        self.stopped = False
        """true once it was signalled to end"""
        self._kill_at = math.inf

    def poll(self, grace_s: float | None) -> int | None:
        """Return the exit status once the command has ended and all that it started, None before; to be called often.

        When `grace_s` is no longer None: SIGTERM to its group, then SIGKILL to all so many seconds later, or earlier
        when the grace has become shorter meanwhile. A negative status is the signal's number.
        """
        if (status := self._process.poll()) is not None:
            return status
        if grace_s is not None:
            self._kill_at = min(self._kill_at, time.monotonic() + grace_s)
            if not self.stopped:
                self.stopped = True
                self._process.send_signal(signal.SIGTERM)
        if time.monotonic() > self._kill_at:
            self._process.send_signal(END)
        bound(self._log)
        return None


def process_start(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot (field 22 of /proc/PID/stat), None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def end_orphan(pid: int, started: int | None) -> bool:
    """Kill the group of a job that outlived its runner; False when that very process is gone."""
    if started is None or process_start(pid) != started:
        return False
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return True
