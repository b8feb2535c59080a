"""One job as a value, and as the files of its folder.

root/<id>/spec.json     what was asked, defaults filled in
         /state.json    a copy of the job's row in the database, which is rebuilt from these copies
         /events.jsonl  progress, metrics and status changes, numbered
         /log.txt       stdout and stderr of its process; what was before the last 16 MiB or less is in log.1.txt
         /loop.json     where a loop stands, written by the server
         /result.json, error.txt   written by its process (see reporter.py)
         /resume, outcomes.jsonl, pins.json   what another attempt continues from, written by its process
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import read_json
from pirl_server.config.jobs import JobSpec, parse_spec

ID = re.compile(r"job_[0-9a-f]{24}")
STATE, SPEC = "state.json", "spec.json"
Stamps: TypeAlias = tuple[tuple[int, int, int], ...]


class Status(str, Enum):
    """Where a job stands. It moves forward, but for one that is paused or tried again."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True when nothing will change any more."""
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True)
class Job:
    """One job as it stands now."""

    id: str
    spec: JobSpec
    status: Status
    created: str
    started: str | None = None
    """of the first attempt"""
    finished: str | None = None
    pid: int | None = None
    process_started: int | None = None
    """clock ticks since boot at which its process began: with the pid this names one process for good"""
    error: str | None = None
    """reason of failure or cancellation, one line"""
    result: dict[str, Any] | None = None
    """of a loop: where it stands"""
    parent: str | None = None
    """the loop that submitted it, with round, phase and attempt; None: a user did"""
    key: str | None = None
    """that it was submitted with: a second submission with it is this job"""
    attempt: int = 0
    """how often it was started"""
    token: int = 0
    """of the claim that runs it, rising over all jobs: a runner with an older one can't change the job any more"""
    device: str | None = None
    """that the present or last attempt was given"""
    causes: tuple[str, ...] = ()
    """why earlier attempts ended, the last of them"""
    crashes: int = 0
    """attempts in a row that crashed without a new checkpoint"""
    checkpoint: str = ""
    """what it had to continue from when the present or last attempt began"""
    revision: int = 0
    """rises with every change"""


_JOB = TypeAdapter(Job)


class DamagedJobError(ValueError):
    """The files of a job can't be read; the text names the file."""


class KeyInUseError(ValueError):
    """The key of a submission belongs to a job that was asked for otherwise; the text names the job."""


class FencedError(RuntimeError):
    """Another claim has the job now: what the older one has to say of it is not taken."""


def state_of(job: Job) -> dict[str, Any]:
    """Return what state.json holds: all but id and specification."""
    state = {key.name: getattr(job, key.name) for key in dataclasses.fields(Job) if key.name not in ("id", "spec")}
    return state | {"status": job.status.value, "causes": list(job.causes)}


def job_of(job_id: str, spec: JobSpec, state: dict[str, Any]) -> Job:
    """Make a job from what `state_of` returned. Raises ValueError with one line."""
    try:
        return _JOB.validate_python({**state, "id": job_id, "spec": spec})
    except (ValidationError, TypeError) as error:
        faults = error.errors() if isinstance(error, ValidationError) else ()
        words = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults) or str(error)
        raise ValueError(words) from None


def stamps(directory: Path) -> Stamps:
    """Return what changes when one of the files that `read_folder` reads is replaced, or written to."""
    stats = [os.stat(f"{directory}/{name}") for name in (STATE, SPEC) if os.path.isfile(f"{directory}/{name}")]
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def read_folder(directory: Path) -> Job:
    """Read a job from its files. Raises ValueError that names the file at fault, OSError."""
    try:
        state, spec = read_json(directory / STATE), read_json(directory / SPEC)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"'{error.filename}' can't be read: {error.strerror}") from None
    try:
        parsed = parse_spec(spec)
    except ValueError as error:
        raise ValueError(f"'{directory / SPEC}' can't be read: {error}") from None
    try:
        return job_of(directory.name, parsed, state)
    except (ValueError, TypeError) as error:
        raise ValueError(f"'{directory / STATE}' can't be read: {error}") from None
