"""The status of a job when an attempt at it has ended: pure decisions over its exit status and what was wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pirl_server.atomic_files import utc_now
from pirl_server.jobs.job import Job, Status

AGAIN = 75
"""exit status (EX_TEMPFAIL) of an attempt that another one may continue: paused, or failed through no fault of the
request"""
CANCEL, PAUSE, CLOSE, STALL = "cancel", "pause", "close", "stall"
"""why an attempt was stopped"""
CANCELLED, STOPPED = "cancelled while it ran", "the server was stopped"
RESTARTED = "server restarted while the job ran"
MAX_CAUSES = 20
CONTINUED_FROM = ("resume/state.json", "outcomes.jsonl")
"""files of a job that change with each of its checkpoints"""


def checkpoint_mark(directory: Path) -> str:
    """Return what changes with every checkpoint of a job."""
    found = []
    for name in CONTINUED_FROM:
        try:
            stat = (directory / name).stat()
        except OSError:
            continue
        found.append(f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}")
    return " ".join(found)


def verdict(job: Job, code: int, why: str, stopped: str | None, mark: str) -> Job:
    """Return the job after an attempt that ended with this exit status, negative: a signal's number.

    `why` is what the attempt left as its reason, `stopped` why it was stopped, None: it was not.
    """
    if stopped == CANCEL:
        return ended(job, Status.CANCELLED, CANCELLED)
    if code == 0:
        return ended(job, Status.SUCCEEDED, None)
    if stopped == STALL:
        return crashed(job, f"stalled: no progress for {job.spec.stall_s:g} s", mark)
    if 0 < code != AGAIN:
        return ended(job, Status.FAILED, why)
    if stopped == PAUSE:
        return replace(job, status=Status.PAUSED, pid=None, process_started=None, crashes=0)
    if stopped == CLOSE:
        return _again(replace(job, crashes=0), STOPPED)
    return crashed(job, why, mark)


def crashed(job: Job, why: str, mark: str) -> Job:
    """Return the job to be tried again, or failed where it has crashed too often without a new checkpoint."""
    crashes = 1 if mark != job.checkpoint else job.crashes + 1
    if crashes > job.spec.retries:
        return ended(replace(job, crashes=crashes), Status.FAILED, why)
    return _again(replace(job, crashes=crashes), why)


def ended(job: Job, status: Status, error: str | None) -> Job:
    """Return the job as it is over."""
    return replace(job, status=status, error=error, finished=utc_now())


def _again(job: Job, why: str) -> Job:
    causes = (*job.causes, f"attempt {job.attempt}: {why}")[-MAX_CAUSES:]
    return replace(job, status=Status.QUEUED, pid=None, process_started=None, causes=causes)
