"""Runs queued jobs one at a time (one device), each as its own process group; alone it writes their state."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pirl_server.disk import utc_now
from pirl_server.jobs.events import EventLog, EventTail
from pirl_server.jobs.job import Job, JobStore, Status
from pirl_server.jobs.process import JobProcess, end_orphan
from pirl_server.jobs.report import ERROR, RESULT
from pirl_server.jobs.spec import JobSpec

_LOG = logging.getLogger(__name__)


class Supervisor:
    """The queue of jobs and the thread that works it off.

    `command` is started with the job's directory appended. Queued jobs survive a restart of the server; a job that was
    running then has failed. A cancelled job has `cancel_grace_s` to save what it has, one whose server stops
    `close_grace_s`.
    """

    def __init__(
        self, root: Path, command: Sequence[str], cancel_grace_s: float = 30.0, close_grace_s: float = 2.0
    ) -> None:
        self._store = JobStore(root)
        self._command = tuple(command)
        self._cancel_grace_s, self._close_grace_s = cancel_grace_s, close_grace_s
        self._changed = threading.Condition()
        self._cancelled: set[str] = set()
        self._closing = False
        self._recover()
        self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._worker.start()

    def submit(self, spec: JobSpec) -> Job:
        """Queue a job."""
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is stopping: it takes no more jobs")
            job = self._store.create(spec)
            self._announce(job)
            self._changed.notify_all()
        return job

    def get(self, job_id: str) -> Job:
        """Return a job. Raises KeyError for an unknown id."""
        return self._store.get(job_id)

    def list(self, after: str | None = None, limit: int = 20, status: Status | None = None) -> list[Job]:
        """Return jobs, newest first; `after` is the last id of the page before."""
        return self._store.list(after, limit, status)

    def events(self, job_id: str, after: int = 0) -> EventTail:
        """Follow a job's events after the given id. Raises KeyError for an unknown job."""
        return EventTail(self._store.directory(job_id), after)

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop: a queued one is cancelled at once, a running one when its process has ended.

        Raises KeyError for an unknown id, ValueError when it has ended already.
        """
        with self._changed:
            job = self._store.get(job_id)
            if job.status.ended:
                raise ValueError(f"{job_id} has {job.status.value} already")
            if job.status is Status.QUEUED:
                return self._finish(job, Status.CANCELLED, "cancelled before it started")
            self._cancelled.add(job_id)
        return job

    def close(self) -> None:
        """Stop the running job and return when its processes are gone; queued jobs wait for the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.join()

    def _recover(self) -> None:
        for job in self._store.list(limit=2**31, status=Status.RUNNING):
            if job.pid is not None and end_orphan(job.pid, job.process_started):
                _LOG.warning("%s had outlived the server that started it and was ended", job.id)
            self._finish(job, Status.FAILED, "server restarted while it ran")

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._run(job)
            except OSError as error:
                _LOG.exception("%s could not be run", job.id)
                self._finish(self._store.get(job.id), Status.FAILED, f"could not be run: {error}")

    def _next(self) -> Job | None:
        with self._changed:
            while not self._closing:
                if queued := self._store.list(limit=2**31, status=Status.QUEUED):
                    return self._save(replace(queued[-1], status=Status.RUNNING, started=utc_now()))
                self._changed.wait()
        return None

    def _run(self, job: Job) -> None:
        directory = self._store.directory(job.id)
        process = JobProcess([*self._command, str(directory)], directory / "log.txt")
        # the process owns the event log from here on: only its state is written now
        self._store.save(running := replace(job, pid=process.pid, process_started=process.started))
        code = process.wait(lambda: self._grace(job.id))
        with self._changed:
            self._finish(running, *self._verdict(running, directory, code, process.stopped))
            self._cancelled.discard(job.id)

    def _grace(self, job_id: str) -> float | None:
        """Seconds that a job has left to end by itself; None: nobody wants it to end."""
        if self._closing:
            return self._close_grace_s
        return self._cancel_grace_s if job_id in self._cancelled else None

    def _verdict(self, job: Job, directory: Path, code: int, stopped: bool) -> tuple[Status, str | None]:
        if stopped:  # a job that ended by itself before the signal reached it keeps its own ending
            cancelled = job.id in self._cancelled
            return Status.CANCELLED, "cancelled while it ran" if cancelled else "the server was stopped"
        return (Status.SUCCEEDED, None) if code == 0 else (Status.FAILED, _why(directory, code))

    def _finish(self, job: Job, status: Status, error: str | None) -> Job:
        path = self._store.directory(job.id) / RESULT
        result = json.loads(path.read_text()) if path.exists() else None
        return self._save(replace(job, status=status, error=error, result=result, finished=utc_now()))

    def _save(self, job: Job) -> Job:
        self._store.save(job)
        self._announce(job)
        return job

    def _announce(self, job: Job) -> None:
        EventLog(self._store.directory(job.id)).append("status", {"status": job.status.value, "error": job.error})


def _why(directory: Path, code: int) -> str:
    """Return one line: what the process said about its failure, else how it ended."""
    if (directory / ERROR).exists():
        return (directory / ERROR).read_text()
    if code < 0:
        return f"its process was killed by signal {-code}"
    lines = [line for line in (directory / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"its process ended with status {code} and said nothing"
