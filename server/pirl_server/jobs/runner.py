"""Works the queue off: one job at a time on each device; the only one that starts jobs, watches them and ends them.

No error ends it. What the disk rejects is tried again until it has room; a job whose files can't be read is moved into
quarantine, or left out where it is when even that fails. Times are monotonic: the wall clock decides nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pirl_server.atomic_files import quarantine
from pirl_server.jobs.executor import Execution, Executor, Place
from pirl_server.jobs.heartbeat import ProgressWatch
from pirl_server.jobs.job import FencedError, Job, Status
from pirl_server.jobs.outcome import ERROR, RESULT, read_result, why_it_failed
from pirl_server.jobs.process import end_orphan, process_start
from pirl_server.jobs.store import JobStore
from pirl_server.jobs.verdict import CANCEL, CLOSE, PAUSE, RESTARTED, STALL, checkpoint_mark, crashed, ended, verdict

_LOG = logging.getLogger(__name__)
POLL_S = 0.05
FIRST_RETRY_S, RETRY_S = 0.2, 5.0
BUSY_S = 0.5
"""until a device is tried again that a job of another server has"""
ORPHAN_S = 10.0
"""for a killed process to be gone"""
LOCK = ".runner.lock"


@dataclass(frozen=True)
class Graces:
    """How long a job that is to end may take, in seconds."""

    cancel_s: float = 30.0
    pause_s: float = 60.0
    close_s: float = 2.0

    def of(self, why: str) -> float:
        """Return that of a reason to end; one that has stalled is given the time of one that is cancelled."""
        return {PAUSE: self.pause_s, CLOSE: self.close_s}.get(why, self.cancel_s)


@dataclass
class _Attempt:
    """One job under way."""

    job: Job
    execution: Execution
    watch: ProgressWatch
    stopped: str | None = None
    ending: Job | None = None
    """not None: nothing of it runs any more, and this is to be stored"""


class Runner:
    """The queue of one folder of jobs, worked off by the thread that calls `run`.

    `report` is called with what keeps jobs from being run, one line, empty: nothing. Damaged jobs are moved below
    `put_away`. Other methods are for any thread.
    """

    def __init__(
        self,
        root: Path,
        store: JobStore,
        executor: Executor,
        devices: Sequence[str],
        graces: Graces,
        put_away: Path,
        report: Callable[[str], None] = lambda trouble: None,
    ) -> None:
        self._root, self._store, self._executor, self._graces = root, store, executor, graces
        self._put_away_to, self._report_to = put_away, report
        self._attempts: dict[str, _Attempt | None] = dict.fromkeys(devices)
        self._immovable: set[str] = set()
        self._cancelled: set[str] = set()
        self._wake, self._closing = threading.Event(), False
        self._trouble, self._pause_s, self._retry_at = "", FIRST_RETRY_S, 0.0
        self._recovered = False
        self._seen: object = None

    def run(self) -> None:
        """Work until `close` and then until nothing runs any more."""
        held = self._lock()
        try:
            while not self._closing or any(self._attempts.values()):
                self._wake.wait(POLL_S)
                self._wake.clear()
                self._tick()
        finally:
            if held is not None:
                os.close(held)

    def wake(self) -> None:
        """Look at the queue now."""
        self._wake.set()

    def cancel(self, job_id: str) -> None:
        """Stop a job whose cancelling the disk could not take."""
        self._cancelled.add(job_id)
        self._wake.set()

    def close(self) -> None:
        """Stop what runs, and let `run` return."""
        self.stop()
        self._wake.set()

    def stop(self) -> None:
        """As `close`, from a signal handler."""
        self._closing = True

    def _lock(self) -> int | None:
        """Wait until no other runner has these jobs; the kernel ends a dead one's hold."""
        try:
            descriptor = os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:  # claims and leases keep two runners apart as well
            _LOG.error("the lock of the jobs' runner can't be made: %s", error)
            return None
        while not self._closing:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(POLL_S)
            else:
                break
        return descriptor

    def _tick(self) -> None:
        for device, attempt in self._attempts.items():
            if attempt is not None and self._over(attempt):
                self._attempts[device] = None
                self._seen = None
        if self._closing or time.monotonic() < self._retry_at:
            return
        try:
            done = self._recovered or self._recover()
            while done and self._start_next():
                pass
        except Exception as error:
            self._retry("the next job can't be started" if self._recovered else "jobs can't be taken in", error)
        else:
            self._well()

    def _over(self, attempt: _Attempt) -> bool:
        """Whether the attempt has ended and its end is stored."""
        try:
            if attempt.ending is None:
                attempt.ending = self._poll(attempt)
        except Exception as error:
            _LOG.exception("%s could not be run", attempt.job.id)
            attempt.ending = ended(attempt.job, Status.FAILED, f"could not be run: {error}")
        if attempt.ending is None or (time.monotonic() < self._retry_at and not self._closing):
            return False
        try:
            self._settle(attempt.ending)
        except Exception as error:
            self._retry(f"the end of {attempt.job.id} can't be stored", error)
            return self._closing
        self._cancelled.discard(attempt.job.id)
        self._well()
        return True

    def _poll(self, attempt: _Attempt) -> Job | None:
        job, directory = attempt.job, self._store.path(attempt.job.id)
        why = self._stop(attempt)
        if why is not None and why != attempt.stopped:
            attempt.stopped = why
            if why == CANCEL:
                _leave_word(directory)
        if (code := attempt.execution.poll(None if why is None else self._graces.of(why))) is None:
            return None
        stopped = attempt.stopped if attempt.execution.stopped else None  # one that ended before keeps its own ending
        return verdict(job, code, why_it_failed(directory, code), stopped, checkpoint_mark(directory))

    def _stop(self, attempt: _Attempt) -> str | None:
        """Return why a job is to end, None: it is not."""
        job_id, limit_s = attempt.job.id, attempt.job.spec.stall_s
        idle_s = attempt.watch.look(time.monotonic())
        wanted = CANCEL if job_id in self._cancelled else None
        if wanted is None:
            try:
                wanted = self._store.wanted(job_id)
            except OSError:
                wanted = None
        stalled = attempt.stopped == STALL or (limit_s is not None and idle_s > limit_s)
        return wanted or (CLOSE if self._closing else None) or (STALL if stalled else None)

    def _settle(self, job: Job) -> None:
        try:
            if not self._store.path(job.id).is_dir():
                _LOG.error("%s: %s, but its folder was removed while it ran", job.id, job.status.value)
                self._store.forget(job.id)
                return
            self._finish(job, fenced=True)
        except (KeyError, FencedError) as error:
            _LOG.error("the end of %s is not taken: %s", job.id, error)

    def _finish(self, job: Job, fenced: bool = False) -> None:
        result = None
        try:
            result = read_result(self._store.path(job.id) / RESULT) if job.status.ended else None
        except ValueError as damage:
            if job.status is Status.SUCCEEDED:
                job = ended(job, Status.FAILED, str(damage))
        self._store.announce(self._store.save(replace(job, result=result), fenced, announced=False))

    def _recover(self) -> bool:
        """Take in what is in the folders, and what a runner that was killed left as running."""
        self._store.take_in()
        self._put_away()
        for job in self._store.running(loops=False):
            if job.pid is not None and end_orphan(job.pid, job.process_started):
                _LOG.warning("%s was still running after its runner ended and was killed", job.id)
                _wait_gone(job.pid, job.process_started)
            self._finish(crashed(job, RESTARTED, checkpoint_mark(self._store.path(job.id))))
        self._store.announce_all()
        self._recovered = True
        return True

    def _start_next(self) -> bool:
        """Start one job where there is one and a device for it; return whether there may be another."""
        free = [device for device, attempt in self._attempts.items() if attempt is None]
        if not free or (self._seen == (now := self._store.changes()) and not self._store.refused):
            return False
        while (lost := self._store.hopeless()) is not None:
            self._finish(ended(self._store.get(lost[0]), Status.FAILED, lost[1]))
        if not self._store.waiting():
            self._seen = now
            if self._store.refused:
                self._store.take_in()
                self._retry_at = time.monotonic() + RETRY_S
            return False
        for device in free:
            if (place := self._executor.reserve(device)) is not None:
                return self._start_at(place, device)
        self._retry_at = time.monotonic() + BUSY_S
        return False

    def _start_at(self, place: Place, device: str) -> bool:
        """Start the next job there; return whether one was taken."""
        try:
            self._store.take_in()
            self._put_away()
            job = self._store.claim(device=device)
        except BaseException:
            place.release()
            raise
        if job is None:
            place.release()
            return False
        self._start(job, place, device)
        return True

    def _start(self, job: Job, place: Place, device: str) -> None:
        self._store.announce(job)
        directory = self._store.path(job.id)
        for name in (RESULT, ERROR):
            (directory / name).unlink(missing_ok=True)
        try:
            execution = place.start(directory)
        except OSError as error:
            self._finish(ended(job, Status.FAILED, f"could not be run: {error}"))
            return
        # the process owns the event log from here on: only its state is written now
        running = replace(job, pid=execution.pid, process_started=execution.started)
        self._attempts[device] = _Attempt(running, execution, ProgressWatch(directory, time.monotonic()))
        try:
            self._store.save(running, fenced=True)
        except OSError:
            _LOG.exception("the process id of %s can't be stored; the job runs anyway", job.id)

    def _put_away(self) -> None:
        for job_id, why in dict(self._store.damaged).items():
            path = self._store.path(job_id)
            if not path.exists() or job_id in self._immovable | self._store.refused:
                continue
            try:
                home = quarantine(path, self._put_away_to, why)
            except OSError as error:
                self._immovable.add(job_id)
                _LOG.error("%s is damaged and can't be moved (%s): %s", job_id, error, why)
            else:
                self._store.damaged[job_id] = f"{why}; it was moved to '{home}'"
                _LOG.error("%s is damaged: %s; it was moved to '%s'", job_id, why, home)

    def _retry(self, what: str, error: Exception) -> None:
        trouble = f"{what}, retried every {RETRY_S:g} s: {error}"
        if trouble != self._trouble:
            _LOG.error("%s", trouble, exc_info=error)
        self._trouble, self._retry_at = trouble, time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, RETRY_S)
        self._report_to(trouble)

    def _well(self) -> None:
        self._trouble, self._pause_s = "", FIRST_RETRY_S
        self._report_to("")


def _leave_word(directory: Path) -> None:
    """Say that the signal means the end: without this file it means a pause."""
    try:
        (directory / CANCEL).touch()
    except OSError as error:
        _LOG.error("'%s' can't be written, the job will not keep what it has: %s", directory / CANCEL, error)


def _wait_gone(pid: int, started: int | None) -> None:
    deadline = time.monotonic() + ORPHAN_S
    while process_start(pid) == started and time.monotonic() < deadline:
        time.sleep(POLL_S)
