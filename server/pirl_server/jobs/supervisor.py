"""Runs queued jobs one at a time (one device), each below its own reaper; the only writer of their state.

Loops are stored and announced here too, but run in the server: see `hosted`.

No error ends the thread that does it. What the disk rejects is tried again until it has room; a job whose files can't
be read is moved into quarantine, or left out where it is when even that fails.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pirl_server.atomic_files import quarantine, read_json, utc_now
from pirl_server.config.jobs import JobSpec
from pirl_server.config.loop import Loop
from pirl_server.jobs.events import EventBlocks, EventLog, EventTail
from pirl_server.jobs.hosted_jobs import HostedJobs
from pirl_server.jobs.job import DamagedJobError, Job, JobStore, Status
from pirl_server.jobs.process import JobProcess, end_orphan
from pirl_server.jobs.reporter import ERROR, RESULT

_LOG = logging.getLogger(__name__)
ALL = 2**31
FIRST_RETRY_S, RETRY_S = 0.2, 5.0
LOG_TAIL_BYTES, MAX_ERROR_BYTES = 64 * 1024, 4096
RESTARTED, STOPPED = "server restarted while the job ran", "the server was stopped"
"""why a job ended that did nothing wrong"""
Done = TypeVar("Done")


class Supervisor:
    """The queue of jobs and the thread that works it off.

    `command` is started with the job's directory appended. Queued jobs survive a restart of the server; a job that was
    running then has failed. A cancelled job has `cancel_grace_s` to save what it has, one whose server stops
    `close_grace_s`. Damaged jobs are moved below `quarantine`; default: a folder of that name beside `root`.
    """

    def __init__(
        self,
        root: Path,
        command: Sequence[str],
        cancel_grace_s: float = 30.0,
        close_grace_s: float = 2.0,
        quarantine: Path | None = None,
    ) -> None:
        self._store = JobStore(root)
        self._command = tuple(command)
        self._cancel_grace_s, self._close_grace_s = cancel_grace_s, close_grace_s
        self._quarantine = quarantine or root.with_name("quarantine") / root.name
        self._changed = threading.Condition()
        self._cancelled: set[str] = set()
        self._immovable: set[str] = set()
        self._running: Job | None = None
        self._recovered = self._closing = False
        self._statuses: dict[str, Status] = {}
        self._blocks = EventBlocks()
        self._trouble = ""
        self.hosted = HostedJobs(self._store, self._changed, self._save, self._cancelled)
        """the jobs that the server itself runs"""
        try:
            self._recover()
        except Exception as error:  # robots are served without jobs; the thread tries again
            self._report("the jobs of the previous run can't be closed", error)
        self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._worker.start()

    @property
    def degraded(self) -> list[str]:
        """What keeps jobs from being run or shown, one line each; empty: nothing. Never waits."""
        lines = [f"jobs: {self._trouble}"] if self._trouble else []
        lines += (
            [] if self._worker.is_alive() or self._closing else ["jobs: supervisor thread ended: restart the server"]
        )
        return lines + [f"jobs: {job_id} is damaged: {why}" for job_id, why in sorted(self.damaged.items())]

    @property
    def damaged(self) -> dict[str, str]:
        """Ids of the jobs that could not be read since the start, and why."""
        return dict(self._store.damaged)

    def counts(self) -> Counter[Status]:
        """Return how many jobs have each status. Never waits."""
        return Counter(list(self._statuses.values()))

    def submit(self, spec: JobSpec, parent: str | None = None) -> Job:
        """Queue a job; one with a parent, of which there is one already, is not queued twice: the first is returned.

        Raises OSError when the disk rejects it. Raises RuntimeError while the server stops.
        """
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is stopping: new jobs are rejected")
            if parent is not None and (earlier := self.hosted.child(parent)) is not None:
                return earlier
            job = self._store.create(spec, parent)
            self._announce(job.id, job.status)
            self._changed.notify_all()
        return job

    def has_ended(self, job_id: str) -> bool:
        """Whether a job is over and its last event written: the state is saved before. Raises as `get`."""
        with self._changed:
            return self.get(job_id).status.ended

    def get(self, job_id: str) -> Job:
        """Return a job. Raises KeyError for an unknown id, DamagedJobError when its files can't be read."""
        running = self._running
        try:
            return self._store.get(job_id)
        except (DamagedJobError, KeyError):
            if running is not None and running.id == job_id:
                return running
            raise

    def list(self, after: str | None = None, limit: int = 20, status: Status | None = None) -> list[Job]:
        """Return jobs, newest first, without damaged ones; `after` is the last id of the page before."""
        return self._store.list(after, limit, status)

    def events(self, job_id: str, after: int = 0) -> EventTail:
        """Follow a job's events after the given id. Raises KeyError for an unknown job."""
        return EventTail(self._store.directory(job_id), after, self._blocks)

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop: a queued one is cancelled at once, a running one when its process or its round has ended.

        Raises KeyError for an unknown id, ValueError when it has ended already or can't be read.
        """
        with self._changed:
            job = self.get(job_id)
            if job.status.ended:
                raise ValueError(f"{job_id} is already {job.status.value}")
            if job.status is Status.QUEUED:
                return self._finish(job, Status.CANCELLED, "cancelled before it started")
            self._cancelled.add(job_id)
            self._changed.notify_all()
        return job

    def close(self) -> None:
        """Stop the running job and return when its processes are gone; queued jobs wait for the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.join()

    def _recover(self) -> None:
        """Close what a killed server left as running, and put away what can't be read."""
        found = self._store.list(limit=ALL)
        self._statuses = {job.id: job.status for job in found}
        self._put_away()
        for job in found:
            if job.status is not Status.RUNNING or isinstance(job.spec, Loop):
                continue
            if job.pid is not None and end_orphan(job.pid, job.process_started):
                _LOG.warning("%s was still running after its server ended and was killed", job.id)
            self._finish(job, Status.FAILED, RESTARTED)
        self._recovered = True

    def _put_away(self) -> None:
        for job_id, why in self.damaged.items():
            path = self._store.path(job_id)
            if not path.exists() or job_id in self._immovable | self._store.refused:
                continue
            try:
                home = quarantine(path, self._quarantine, why)
            except OSError as error:
                self._immovable.add(job_id)
                _LOG.error("%s is damaged and can't be moved (%s): %s", job_id, error, why)
            else:
                self._statuses.pop(job_id, None)
                self._store.damaged[job_id] = f"{why}; it was moved to '{home}'"
                _LOG.error("%s is damaged: %s; it was moved to '%s'", job_id, why, home)

    def _work(self) -> None:
        while (job := self._until_done("the next job can't be started", self._next)) is not None:
            self._running = job
            try:
                ending = self._run(job)
            except Exception as error:
                _LOG.exception("%s could not be run", job.id)
                ending = (job, Status.FAILED, f"could not be run: {error}")
            self._until_done(f"the end of {job.id} can't be stored", lambda: self._settle(*ending))  # noqa: B023
            self._running = None

    def _until_done(self, what: str, action: Callable[[], Done]) -> Done | None:
        """Call it, again and again, until it raises nothing more; None when the server stops first."""
        pause_s = FIRST_RETRY_S
        while True:
            try:
                done = action()
            except Exception as error:
                self._report(what, error)
            else:
                self._trouble = ""
                return done
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, pause_s):
                    return None
            pause_s = min(2 * pause_s, RETRY_S)

    def _report(self, what: str, error: Exception) -> None:
        trouble = f"{what}, retried every {RETRY_S:g} s: {error}"
        if trouble != self._trouble:
            _LOG.error("%s", trouble, exc_info=error)
        self._trouble = trouble

    def _next(self) -> Job | None:
        with self._changed:
            while not self._closing:
                if not self._recovered:
                    self._recover()
                queued = [
                    job for job in self._store.list(limit=ALL, status=Status.QUEUED) if not isinstance(job.spec, Loop)
                ]
                self._put_away()
                if queued:
                    return self._save(replace(queued[-1], status=Status.RUNNING, started=utc_now()))
                self._trouble = ""
                self._changed.wait(RETRY_S if self._store.refused else None)
        return None

    def _run(self, job: Job) -> tuple[Job, Status, str | None]:
        """Run its process; return the job as it was then, and how it ended."""
        directory = self._store.path(job.id)
        try:
            process = JobProcess([*self._command, str(directory)], directory / "log.txt")
        except OSError as error:
            return job, Status.FAILED, f"could not be run: {error}"
        # the process owns the event log from here on: only its state is written now
        self._running = running = replace(job, pid=process.pid, process_started=process.started)
        try:
            self._store.save(running)
        except OSError:
            _LOG.exception("the process id of %s can't be stored; the job runs anyway", job.id)
        code = process.wait(lambda: self._grace(job.id))
        return running, *self._verdict(running, directory, code, process.stopped)

    def _settle(self, job: Job, status: Status, error: str | None) -> None:
        with self._changed:
            if self._store.path(job.id).is_dir():
                self._finish(job, status, error)
            else:
                _LOG.error("%s: %s, but its folder was removed while it ran", job.id, status.value)
            self._cancelled.discard(job.id)

    def _grace(self, job_id: str) -> float | None:
        """Seconds that a job has left to end by itself; None: it has not been cancelled."""
        if self._closing:
            return self._close_grace_s
        return self._cancel_grace_s if job_id in self._cancelled else None

    def _verdict(self, job: Job, directory: Path, code: int, stopped: bool) -> tuple[Status, str | None]:
        if stopped:  # a job that ended by itself before the signal reached it keeps its own ending
            cancelled = job.id in self._cancelled
            return Status.CANCELLED, "cancelled while it ran" if cancelled else STOPPED
        return (Status.SUCCEEDED, None) if code == 0 else (Status.FAILED, _why(directory, code))

    def _finish(self, job: Job, status: Status, error: str | None) -> Job:
        try:
            result = _result(self._store.path(job.id) / RESULT)
        except ValueError as damage:
            result = None
            if status is Status.SUCCEEDED:
                status, error = Status.FAILED, str(damage)
        return self._save(replace(job, status=status, error=error, result=result, finished=utc_now()))

    def _save(self, job: Job) -> Job:
        self._store.save(job)
        self._announce(job.id, job.status, job.error)
        return job

    def _announce(self, job_id: str, status: Status, why: str | None = None) -> None:
        """Append the status to the events. The state counts: what can't be announced is only logged."""
        self._statuses[job_id] = status
        try:
            EventLog(self._store.path(job_id)).append("status", {"status": status.value, "error": why})
        except OSError as error:
            _LOG.error("%s is %s, but the event can't be written: %s", job_id, status.value, error)


def _result(path: Path) -> dict[str, Any] | None:
    """Return what the process left; None where it left nothing. Raises ValueError when that can't be read."""
    if not path.exists():
        return None
    result = read_json(path)
    if not isinstance(result, dict):
        raise ValueError(f"'{path}' can't be read: it holds no JSON object")
    return result


def _why(directory: Path, code: int) -> str:
    """Return one line: what the process said about its failure, else how it ended."""
    if (directory / ERROR).exists():
        with (directory / ERROR).open("rb") as said:
            return said.read(MAX_ERROR_BYTES).decode(errors="replace")
    if code < 0:
        return f"its process was killed by signal {-code}"
    last = _last_line(directory / "log.txt") or _last_line(directory / "log.1.txt")
    return last or f"its process ended with status {code} without a message"


def _last_line(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
