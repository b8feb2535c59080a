"""Keys that clients give a submission, so that sending it twice makes one job; they survive a restart and a crash.

JOBS/keys/<hash>.json   hash of the spec, time, and the job: null while it is being made
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import make_folder, read_json, write_json
from pirl_server.config.jobs import JobSpec
from pirl_server.jobs.job import Job

KEPT_S, SWEEP_S = 7 * 86_400, 3600.0
"""how long a key is remembered at least, and how often those that are older are looked for"""


class KeyReusedError(ValueError):
    """The key came with another spec before."""


class SubmissionKeys:
    """The keys below `folder`. Any thread.

    `get(id)` returns a job, or raises KeyError or ValueError; `since(seconds)` returns the jobs that were created at
    this wall time or later, in their order.
    """

    def __init__(
        self, folder: Path, get: Callable[[str], Job], since: Callable[[float], list[Job]], kept_s: float = KEPT_S
    ) -> None:
        self._folder, self._get, self._since, self._kept_s = folder, get, since, kept_s
        self._lock, self._swept = threading.Lock(), 0.0

    def submit(self, key: str, spec: JobSpec, make: Callable[[], Job]) -> tuple[Job, bool]:
        """Return the job of a key, and whether it was there before; where it was not, `make` it.

        Raises KeyReusedError for another spec, KeyError and ValueError when its job can't be read, OSError.
        """
        path, fingerprint = self._folder / f"{_hash(key)}.json", _hash(json.dumps(asdict(spec), sort_keys=True))
        with self._lock:
            self._sweep()
            if (said := self._read(path)) is not None:
                if said["spec"] != fingerprint:
                    raise KeyReusedError("this Idempotency-Key came with another body before: use a new key")
                if (job := self._job(said, fingerprint)) is not None:
                    write_json(path, said | {"job": job.id})
                    return job, True
            make_folder(self._folder)
            entry = {"spec": fingerprint, "at": time.time(), "job": None}
            write_json(path, entry)  # first: a crash in between must not lead to a second job
            try:
                job = make()
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            write_json(path, entry | {"job": job.id})
            return job, False

    def _job(self, said: dict[str, Any], fingerprint: str) -> Job | None:
        """Return the job of an entry; where a crash came in between, the one that was made of this spec since then."""
        if said["job"] is not None:
            return self._get(said["job"])
        taken = {each["job"] for path in self._folder.glob("*.json") if (each := self._read(path))}
        for job in self._since(said["at"]):
            if job.id not in taken and _hash(json.dumps(asdict(job.spec), sort_keys=True)) == fingerprint:
                return job
        return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            said = read_json(path)
            return {name: said[name] for name in ("spec", "at", "job")}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _sweep(self) -> None:
        now = time.time()
        if abs(now - self._swept) < SWEEP_S:
            return
        self._swept = now
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                if path.stat().st_mtime < now - self._kept_s:
                    path.unlink(missing_ok=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
