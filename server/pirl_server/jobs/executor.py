"""The seam between the queue and what runs a job: processes of this machine now, a cluster's own queue later.

The runner reserves a device, starts a job there, and calls `poll` a few times a second until that returns. Whatever
executes a job reads spec.json in its folder, writes events, result and checkpoints there (a shared disk, on a cluster),
and is given SIGTERM before it is ended. Ray's jobs have this shape (submit, status, stop), and so has Slurm (sbatch,
sacct, scancel).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pirl_server.jobs.leases import environment, take
from pirl_server.jobs.process import JobProcess


class Execution(Protocol):
    """One attempt at a job, under way. For the thread that started it."""

    @property
    def pid(self) -> int | None:
        """Process that stands for all of it on this machine; None: it is not on this machine."""

    @property
    def started(self) -> int | None:
        """When that process began, in clock ticks since boot."""

    @property
    def stopped(self) -> bool:
        """Whether it was stopped by its runner."""

    def poll(self, grace_s: float | None) -> int | None:
        """Return the exit status when nothing of it runs any more, None before; negative: the number of a signal.

        With `grace_s` it gets SIGTERM, and is ended by force so many seconds later; calls after the first may shorten
        that.
        """


class Place(Protocol):
    """A device that is reserved for one job."""

    def start(self, directory: Path) -> Execution:
        """Start the job of this folder; the device is free again when nothing of it runs. Raises OSError."""

    def release(self) -> None:
        """Give the device back: nothing is started."""


class Executor(Protocol):
    """Where jobs run."""

    def reserve(self, device: str) -> Place | None:
        """Reserve a device; None while another job has it. Raises OSError."""


class LocalExecutor:
    """Processes of this machine, below a reaper each: they end with the thread that started them.

    `command` gets the job's folder as its last word. The lease of the device is the processes' own.
    """

    def __init__(self, command: Sequence[str], root: Path) -> None:
        self._command, self._root = tuple(command), root

    def reserve(self, device: str) -> LocalPlace | None:
        """Lease it; see `Executor`."""
        lease = take(device, self._root)
        return None if lease is None else LocalPlace(self._command, device, lease)


class LocalPlace:
    """A leased device."""

    def __init__(self, command: Sequence[str], device: str, lease: int) -> None:
        self._command, self._device, self._lease = command, device, lease

    def start(self, directory: Path) -> JobProcess:
        """Start it; see `Place`."""
        command, seen = [*self._command, str(directory)], environment(self._device)
        try:
            return JobProcess(command, directory / "log.txt", keeps=[self._lease], environment=seen)
        finally:
            self.release()  # here: the processes hold it

    def release(self) -> None:
        """Close the lease."""
        os.close(self._lease)
