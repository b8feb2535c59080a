"""Jobs that run in the server itself, because they decide about what it serves: loops. One at a time.

Their state survives a restart of the server: such a job is still running afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import utc_now
from pirl_server.config.loop import Loop
from pirl_server.jobs.events import EventLog
from pirl_server.jobs.job import Job, Status
from pirl_server.jobs.store import JobStore
from pirl_server.jobs.verdict import CANCEL


class HostedJobs:
    """The loops of a supervisor. Any thread; `changed` is notified of every request that concerns them."""

    def __init__(self, store: JobStore, changed: threading.Condition) -> None:
        self._store, self._changed = store, changed

    def next(self, wait_s: float, unless: Callable[[], bool]) -> Job | None:
        """Return the loop to run, marked as started: one that was running before, else the next that is queued.

        Where there is none, wait for a request, at most so long, `unless` that says not to. Raises OSError.
        """
        with self._changed:
            job = self._next()
            if job is None and not unless():
                self._changed.wait(wait_s)
                job = None if unless() else self._next()
        return job

    def child(self, parent: str) -> Job | None:
        """Return the job that a loop submitted under this name; None: it has not."""
        return self._store.of_parent(parent)

    def directory(self, job_id: str) -> Path:
        """Return where a loop keeps its state. Raises KeyError for an unknown id."""
        return self._store.directory(job_id)

    def pause(self, job_id: str) -> Job:
        """Let a loop wait when its present phase is over. Raises KeyError, ValueError when it is not running."""
        return self._switch(job_id, Status.RUNNING, Status.PAUSED)

    def resume(self, job_id: str) -> Job:
        """Let a loop continue. Raises KeyError, ValueError when it is not paused."""
        return self._switch(job_id, Status.PAUSED, Status.RUNNING)

    def paused(self, job_id: str) -> bool:
        """Whether a loop is to wait at the end of its phase."""
        return self._store.get(job_id).status is Status.PAUSED

    def cancelled(self, job_id: str) -> bool:
        """Whether a loop is to end."""
        return self._store.wanted(job_id) == CANCEL

    def wait(self, seconds: float) -> None:
        """Wait for a request, or so long."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """End all waits."""
        with self._changed:
            self._changed.notify_all()

    def report(self, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
        """Append an event. Raises OSError when the disk is full."""
        with self._changed:
            EventLog(self._store.directory(job_id)).append(kind, data)

    def show(self, job_id: str, result: dict[str, Any]) -> None:
        """Show where a loop stands. Raises OSError when the disk is full."""
        self._store.edit(job_id, result=result)

    def settle(self, job_id: str, status: Status, error: str | None, result: dict[str, Any]) -> Job:
        """End a loop. Raises OSError when the disk is full."""
        now = {"status": status, "error": error, "result": result, "finished": utc_now()}
        job = self._store.edit(job_id, announced=False, **now)
        self._store.announce(job)
        return job

    def _next(self) -> Job | None:
        if found := self._store.running(loops=True):
            return found[0]
        job = self._store.claim(loops=True)
        if job is not None:
            self._store.announce(job)
        return job

    def _switch(self, job_id: str, before: Status, after: Status) -> Job:
        with self._changed:
            job = self._store.get(job_id)
            if not isinstance(job.spec, Loop):
                raise ValueError(f"{job_id} is a job of kind '{job.spec.kind}': only a loop waits by its phases")
            saved = self._store.switch(job_id, (before,), status=after)
            self._store.announce(saved)
            self._changed.notify_all()
            return saved
