"""Jobs on disk: one directory each, which survives a restart of the server.

root/<id>/spec.json     what was asked, defaults filled in
         /state.json    written by the supervisor only
         /events.jsonl  progress, metrics and status changes, numbered
         /log.txt       stdout and stderr of its process; what was before the last 16 MiB or less is in log.1.txt
         /loop.json     where a loop stands, written by the server
         /result.json, error.txt   written by its process (see report.py)
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import read_json, utc_now, write_json
from pirl_server.config.jobs import JobSpec, parse_spec

_ID = re.compile(r"job_[0-9a-f]{24}")
STATE, SPEC = "state.json", "spec.json"
MAX_READ = 10_000
"""jobs that are kept in memory as they were read"""
HOT_NS = 1_000_000_000
"""a file that changed within this time may change again within the same tick of the clock"""
_Stamps: TypeAlias = tuple[tuple[int, int, int], ...]


class Status(str, Enum):
    """Where a job stands; it only moves forward, but for a loop, which may be paused and resumed."""

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


_JOB = TypeAdapter(Job)


class DamagedJobError(ValueError):
    """The files of a job can't be read; the text names the file."""


class JobStore:
    """The directory of jobs. Ids rise with time, so their order is the order of creation.

    Jobs that can't be read are left out of lists and named in `damaged`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.damaged: dict[str, str] = {}
        """id -> what is wrong, of those that were met since the start"""
        self.refused: set[str] = set()
        """those of them that the disk did not give: they may be whole"""
        self._kept: OrderedDict[str, tuple[_Stamps, Job]] = OrderedDict()

    def path(self, job_id: str) -> Path:
        """Return where a job of this id lies, or would lie."""
        return self._root / job_id

    def directory(self, job_id: str) -> Path:
        """Return the directory of a job. Raises KeyError for an id that is malformed or unknown."""
        if not _ID.fullmatch(job_id) or not (self._root / job_id / STATE).is_file():
            raise KeyError(job_id)
        return self._root / job_id

    def create(self, spec: JobSpec, parent: str | None = None) -> Job:
        """Store a new job as queued. When the disk rejects (OSError) nothing is left of it."""
        id_ = f"job_{time.time_ns():016x}{secrets.token_hex(4)}"
        job = Job(id_, spec, Status.QUEUED, utc_now(), parent=parent)
        directory, state = self.path(id_), _state(job)
        directory.mkdir(parents=True)
        try:
            write_json(directory / SPEC, dataclasses.asdict(spec))
            write_json(directory / STATE, state)
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return job

    def save(self, job: Job) -> None:
        """Store the present state in one step."""
        write_json(self.path(job.id) / STATE, _state(job))

    def get(self, job_id: str) -> Job:
        """Read a job. Raises KeyError for an unknown id, DamagedJobError for one whose files can't be read."""
        directory = self.directory(job_id)
        try:
            job = self._unchanged(directory) or self._remember(directory)
        except (OSError, ValueError) as error:
            (self.refused.add if isinstance(error, OSError) else self.refused.discard)(job_id)
            self.damaged[job_id] = str(error)
            raise DamagedJobError(str(error)) from None
        self.damaged.pop(job_id, None)
        self.refused.discard(job_id)
        return job

    def _unchanged(self, directory: Path) -> Job | None:
        """Return what was read before where neither file has been replaced since: a list reads thousands."""
        stamps, job = self._kept.get(directory.name, ((), None))
        return job if stamps == _stamps(directory) else None

    def _remember(self, directory: Path) -> Job:
        stamps = _stamps(directory)
        job = _read(directory)
        if time.time_ns() - max(stamp[0] for stamp in stamps) > HOT_NS:
            self._kept[job.id] = stamps, job
            if len(self._kept) > MAX_READ:
                self._kept.popitem(last=False)
        return job

    def list(self, after: str | None = None, limit: int = 20, status: Status | None = None) -> list[Job]:
        """Return up to `limit` jobs that can be read, newest first, that are older than the job `after`."""
        entries = self._root.iterdir() if self._root.is_dir() else ()
        found: list[Job] = []
        for name in sorted((path.name for path in entries if _ID.fullmatch(path.name)), reverse=True):
            if len(found) == limit:
                break
            if after is None or name < after:
                with suppress(KeyError, DamagedJobError):  # never finished being created; named in `damaged`
                    job = self.get(name)
                    found += [job] if status in (None, job.status) else []
        return found


def _state(job: Job) -> dict[str, Any]:
    state = {key.name: getattr(job, key.name) for key in dataclasses.fields(Job) if key.name not in ("id", "spec")}
    return state | {"status": job.status.value}


def _stamps(directory: Path) -> _Stamps:
    """Return what changes when one of the files that `_read` reads is replaced, or written to."""
    stats = [os.stat(f"{directory}/{name}") for name in (STATE, SPEC) if os.path.isfile(f"{directory}/{name}")]
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def _read(directory: Path) -> Job:
    try:
        state, spec = read_json(directory / STATE), read_json(directory / SPEC)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"'{error.filename}' can't be read: {error.strerror}") from None
    try:
        parsed = parse_spec(spec)
    except ValueError as error:
        raise ValueError(f"'{directory / SPEC}' can't be read: {error}") from None
    try:
        return _JOB.validate_python({**state, "id": directory.name, "spec": parsed})
    except (ValidationError, TypeError) as error:
        faults = error.errors() if isinstance(error, ValidationError) else ()
        words = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults) or str(error)
        raise ValueError(f"'{directory / STATE}' can't be read: {words}") from None
