"""Jobs on disk: one directory each, so that a restart of the server forgets nothing.

root/<id>/spec.json     what was asked, defaults filled in
         /state.json    written by the supervisor only
         /events.jsonl  progress, metrics and status changes, numbered
         /log.txt       stdout and stderr of its process
         /result.json, error.txt   written by its process (see report.py)
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pirl_server.disk import utc_now, write_json
from pirl_server.jobs.spec import JobSpec, parse_spec

_ID = re.compile(r"job_[0-9a-f]{24}")


class Status(str, Enum):
    """Where a job stands; it only moves forward."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True when nothing will change any more."""
        return self not in (Status.QUEUED, Status.RUNNING)


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
    """one line: why it failed or was cancelled"""
    result: dict[str, Any] | None = None


class JobStore:
    """The directory of jobs. Ids rise with time, so their order is the order of creation."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def directory(self, job_id: str) -> Path:
        """Return the directory of a job. Raises KeyError for an id that is malformed or unknown."""
        if not _ID.fullmatch(job_id) or not (self._root / job_id / "state.json").is_file():
            raise KeyError(job_id)
        return self._root / job_id

    def create(self, spec: JobSpec) -> Job:
        """Store a new job as queued."""
        job = Job(f"job_{time.time_ns():016x}{secrets.token_hex(4)}", spec, Status.QUEUED, utc_now())
        (self._root / job.id).mkdir()
        write_json(self._root / job.id / "spec.json", spec.model_dump())
        self.save(job)
        return job

    def save(self, job: Job) -> None:
        """Store the present state in one step."""
        state = {key.name: getattr(job, key.name) for key in dataclasses.fields(Job) if key.name not in ("id", "spec")}
        write_json(self._root / job.id / "state.json", state | {"status": job.status.value})

    def get(self, job_id: str) -> Job:
        """Read a job. Raises KeyError for an unknown id."""
        directory = self.directory(job_id)
        state = json.loads((directory / "state.json").read_text())
        spec = parse_spec(json.loads((directory / "spec.json").read_text()))
        return Job(id=job_id, spec=spec, **(state | {"status": Status(state["status"])}))

    def list(self, after: str | None = None, limit: int = 20, status: Status | None = None) -> list[Job]:
        """Return up to `limit` jobs, newest first, that are older than the job `after`."""
        names = sorted((path.name for path in self._root.iterdir() if _ID.fullmatch(path.name)), reverse=True)
        found: list[Job] = []
        for name in names:
            if (after is None or name < after) and (self._root / name / "state.json").is_file():
                job = self.get(name)
                found += [job] if status in (None, job.status) else []
            if len(found) == limit:
                break
        return found
