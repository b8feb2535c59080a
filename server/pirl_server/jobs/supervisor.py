"""The server's side of its jobs: submits, shows, cancels, pauses; and keeps the runner that works them off.

Loops are stored and announced here too, but run in the server: see `hosted`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pirl_server.atomic_files import utc_now
from pirl_server.config.jobs import RESUMABLE, JobSpec
from pirl_server.config.loop import Loop
from pirl_server.jobs.events import EventBlocks, EventTail
from pirl_server.jobs.heartbeat import Signs, signs
from pirl_server.jobs.hosted_jobs import HostedJobs
from pirl_server.jobs.job import Job, Status
from pirl_server.jobs.plan import Plan, plan
from pirl_server.jobs.runner import Graces
from pirl_server.jobs.runner_hosts import RunnerHost, RunnerProcess, RunnerThread
from pirl_server.jobs.store import JobStore
from pirl_server.jobs.verdict import CANCEL, PAUSE

MOST_COMPARED = 20
"""earlier jobs that a plan's time is estimated from"""
DEVICES = ("cpu:0",)
"""one job at a time, whatever it computes on"""
Made = TypeVar("Made")


class Supervisor:
    """The jobs of a server. A thread of it works the queue off, or a process: `apart`.

    `command` is started with the job's directory appended. Queued jobs survive a restart of the server; a job that was
    running then is continued by another attempt. A cancelled job has `cancel_grace_s` to save what it has, one whose
    server stops `close_grace_s`. `devices` are `cpu:N`, or indices or UUIDs of GPUs: one job at a time runs on each.
    Damaged jobs are moved below `quarantine`; default: a folder of that name beside `root`.
    """

    def __init__(
        self,
        root: Path,
        command: Sequence[str],
        cancel_grace_s: float = 30.0,
        close_grace_s: float = 2.0,
        quarantine: Path | None = None,
        devices: Sequence[str] = DEVICES,
        apart: bool = False,
    ) -> None:
        put_away = quarantine or root.with_name("quarantine") / root.name
        self._store = JobStore(root, put_away)
        self._changed = threading.Condition()
        self._closing = False
        self._counted = Counter[Status]()
        self._blocks = EventBlocks()
        self.hosted = HostedJobs(self._store, self._changed)
        """the jobs that the server itself runs"""
        graces = Graces(cancel_s=cancel_grace_s, close_s=close_grace_s)
        self._runner: RunnerHost
        if apart:
            self._runner = RunnerProcess(root, command, devices, graces, put_away)
        else:
            self._runner = RunnerThread(root, self._store, command, devices, graces, put_away)

    @property
    def degraded(self) -> list[str]:
        """What keeps jobs from being run or shown, one line each; empty: nothing. Never waits."""
        lines = [f"jobs: {trouble}"] if (trouble := self._runner.trouble) else []
        return lines + [f"jobs: {job_id} is damaged: {why}" for job_id, why in sorted(self.damaged.items())]

    @property
    def damaged(self) -> dict[str, str]:
        """Ids of the jobs that could not be read since the start, and why."""
        return self._store.damaged | self._runner.damaged

    def counts(self) -> Counter[Status]:
        """Return how many jobs have each status; as they were when the disk does not say."""
        with suppress(OSError):
            self._counted = self._store.counts()
        return self._counted

    def submit(self, spec: JobSpec, parent: str | None = None) -> Job:
        """Queue a job; one with a parent of which there is one already is not queued twice: the first is returned.

        Raises OSError when the disk rejects it, RuntimeError while the server stops, ValueError for a job to wait for
        that is not there.
        """
        return self._queue(lambda: self._store.create(spec, parent))

    def submit_once(self, spec: JobSpec, key: str) -> tuple[Job, bool]:
        """Queue a job, or return the earlier one of this key; say whether it is new.

        Raises as `submit`, KeyInUseError (a ValueError) for the key of a job with another specification.
        """
        return self._queue(lambda: self._store.create_once(spec, key))

    def of_key(self, spec: JobSpec, key: str) -> Job | None:
        """Return the job of this key, None: there is none yet. Raises OSError, KeyInUseError as `submit_once`."""
        return self._store.of_key(spec, key)

    def plan(self, spec: JobSpec) -> Plan:
        """Say what a job would do and cost, without queueing it."""
        return plan(spec, self._store.ahead(spec.priority), self._store.succeeded(spec.kind, MOST_COMPARED))

    def has_ended(self, job_id: str) -> bool:
        """Whether a job is over and its last event written: the state is saved before. Raises as `get`."""
        return self._store.has_ended(job_id)

    def get(self, job_id: str) -> Job:
        """Return a job. Raises KeyError for an unknown id, DamagedJobError when its files can't be read."""
        return self._store.get(job_id)

    def list(self, after: str | None = None, limit: int = 20, status: Status | None = None) -> list[Job]:
        """Return jobs, newest first, without damaged ones; `after` is the last id of the page before."""
        return self._store.list(after, limit, status)

    def signs(self, job: Job) -> Signs:
        """Return the signs of life of a job; none of one that does not run."""
        return signs(self._store.path(job.id)) if job.status is Status.RUNNING else Signs(None, None)

    def events(self, job_id: str, after: int = 0) -> EventTail:
        """Follow a job's events after the given id. Raises KeyError for an unknown job."""
        return EventTail(self._store.directory(job_id), after, self._blocks)

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop: a waiting one is cancelled at once, a running one when its process or its round has ended.

        Raises KeyError for an unknown id, ValueError when it has ended already or can't be read.
        """
        while True:
            job = self.get(job_id)
            if job.status.ended:
                raise ValueError(f"{job_id} is already {job.status.value}")
            waits = (Status.QUEUED,) if isinstance(job.spec, Loop) else (Status.QUEUED, Status.PAUSED)
            if job.status in waits:
                text = "cancelled before it started" if not job.attempt else "cancelled while it waited"
                try:
                    return self._switch(job_id, waits, Status.CANCELLED, error=text, finished=utc_now())
                except ValueError:
                    continue  # it was claimed meanwhile
            self._want(job, CANCEL)
            return self.get(job_id)

    def pause(self, job_id: str) -> Job:
        """Let a loop wait when its phase is over, a job that waits wait on, and one that runs stop at a checkpoint.

        Raises KeyError, ValueError for one that has ended, is paused, or whose kind has no checkpoints.
        """
        while True:
            job = self.get(job_id)
            if isinstance(job.spec, Loop):
                return self.hosted.pause(job_id)
            if job.spec.kind not in RESUMABLE:
                kinds = ", ".join(sorted(RESUMABLE))
                raise ValueError(f"{job_id} is a job of kind '{job.spec.kind}': only {kinds}, loop can be paused")
            if job.status is Status.RUNNING:
                self._want(job, PAUSE)
                return self.get(job_id)
            try:
                return self._switch(job_id, (Status.QUEUED,), Status.PAUSED)
            except ValueError:
                if self.get(job_id).status is not Status.RUNNING:
                    raise

    def resume(self, job_id: str) -> Job:
        """Let a paused job continue from its last checkpoint. Raises KeyError, ValueError when it is not paused."""
        if isinstance(self.get(job_id).spec, Loop):
            return self.hosted.resume(job_id)
        return self._switch(job_id, (Status.PAUSED,), Status.QUEUED)

    def close(self) -> None:
        """Stop the running job and return when its processes are gone; queued jobs wait for the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._runner.close()
        self._store.close()

    def _queue(self, create: Callable[[], Made]) -> Made:
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is stopping: new jobs are rejected")
            made = create()
            self._notify()
        return made

    def _want(self, job: Job, what: str) -> None:
        try:
            self._store.want(job.id, what)
        except OSError:
            if what != CANCEL or isinstance(job.spec, Loop):
                raise
            self._runner.cancel(job.id)  # on a full disk a job must end all the more
        with self._changed:
            self._notify()

    def _switch(self, job_id: str, before: tuple[Status, ...], status: Status, **changes: object) -> Job:
        job = self._store.switch(job_id, before, status=status, **changes)
        self._store.announce(job)
        with self._changed:
            self._notify()
        return job

    def _notify(self) -> None:
        self._changed.notify_all()
        self._runner.wake()
