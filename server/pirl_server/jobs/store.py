"""All jobs: their rows in one database, which decides, and a folder each, which survives without it.

A change writes state.json in the folder, then commits the row. What a crash between the two leaves is a folder that is
one revision ahead, and is taken in at the next start; so is the folder of an earlier version, which had no database.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import secrets
import shutil
import sqlite3
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import make_folder, utc_now, write_json
from pirl_server.config.jobs import JobSpec, parse_spec
from pirl_server.config.loop import Loop
from pirl_server.jobs.database import NAME, JobDatabase
from pirl_server.jobs.events import EventLog
from pirl_server.jobs.job import (
    ID,
    SPEC,
    STATE,
    DamagedJobError,
    FencedError,
    Job,
    KeyInUseError,
    Stamps,
    Status,
    job_of,
    read_folder,
    stamps,
    state_of,
)
from pirl_server.jobs.verdict import CANCEL, CANCELLED, PAUSE, checkpoint_mark

MAX_SPECS = 10_000
"""kept in memory as they were parsed: they never change"""
ENDED = tuple(status.value for status in Status if status.ended)
_READY = """SELECT id, spec, state FROM jobs WHERE status = 'queued' AND (kind = 'loop') = ? AND NOT EXISTS (
 SELECT 1 FROM waits LEFT JOIN jobs AS other ON other.id = waits.other
 WHERE waits.job = jobs.id AND other.status IS NOT 'succeeded') ORDER BY priority DESC, id LIMIT 1"""
_HOPELESS = f"""SELECT jobs.id, other, COALESCE(theirs.status, 'gone') FROM jobs JOIN waits ON waits.job = jobs.id
 LEFT JOIN jobs AS theirs ON theirs.id = waits.other WHERE jobs.status IN ('queued', 'paused')
 AND (theirs.id IS NULL OR theirs.status IN {ENDED[1:]}) ORDER BY jobs.id LIMIT 1"""
_LOG = logging.getLogger(__name__)


class JobStore:
    """The jobs below one folder, for any thread and several processes. Ids rise with time.

    Jobs whose files can't be read are left out of lists and named in `damaged`. What the disk rejects raises OSError.
    """

    def __init__(self, root: Path, put_away: Path | None = None) -> None:
        self._root = root
        self.damaged: dict[str, str] = {}
        """id -> what is wrong, of those that were met since the start"""
        self.refused: set[str] = set()
        """those of them that the disk did not give: they may be whole"""
        self._specs: OrderedDict[str, JobSpec] = OrderedDict()
        self._specs_lock = threading.Lock()
        with suppress(OSError):  # a full disk: what is created later makes it
            make_folder(root)
        self._data = JobDatabase(root / NAME, put_away or root.with_name("quarantine") / root.name, self.take_in)

    def path(self, job_id: str) -> Path:
        """Return where a job of this id lies, or would lie."""
        return self._root / job_id

    def directory(self, job_id: str) -> Path:
        """Return the directory of a job. Raises KeyError for an unknown id, and once the directory is gone."""
        self.get(job_id)
        if not self.path(job_id).is_dir():
            self.forget(job_id)
            raise KeyError(job_id)
        return self._root / job_id

    def create(self, spec: JobSpec, parent: str | None = None) -> Job:
        """Store a new job as queued, and return it; or the earlier one of this parent.

        When the disk rejects (OSError) nothing is left of it. Raises ValueError for a job to follow that is not there.
        """
        return self._create(spec, parent, None)[0]

    def create_once(self, spec: JobSpec, key: str) -> tuple[Job, bool]:
        """Store a new job, or return the earlier one of this key; say whether it is new.

        Raises as `create`, and KeyInUseError for the key of a job that was asked for otherwise.
        """
        return self._create(spec, None, key)

    def _create(self, spec: JobSpec, parent: str | None, key: str | None) -> tuple[Job, bool]:
        made: list[Path] = []

        def insert(rows: sqlite3.Connection) -> tuple[Job, bool]:
            if (earlier := self._earlier(rows, spec, parent, key)) is not None:
                return earlier, False
            self._check_after(rows, spec)
            last = rows.execute("SELECT max(id) FROM jobs").fetchone()[0] or ID_OF_0
            number = max(time.time_ns(), int(last[4:20], 16) + 1)  # also when the clock was set back
            id_ = f"job_{number:016x}{secrets.token_hex(4)}"
            job = Job(id_, spec, Status.QUEUED, utc_now(), parent=parent, key=key, revision=1)
            made.append(self.path(job.id))
            made[-1].mkdir(parents=True)
            write_json(made[-1] / SPEC, dataclasses.asdict(spec))
            write_json(made[-1] / STATE, state_of(job))
            # before the row: from then on its runner may write events
            EventLog(made[-1]).append("status", {"status": job.status.value, "error": None})
            self._put(rows, job, announced=True)
            return job, True

        try:
            return self._data.write(insert)
        except BaseException:
            for each in made:
                shutil.rmtree(each, ignore_errors=True)
            raise

    def save(self, job: Job, fenced: bool = False, announced: bool = True) -> Job:
        """Store the present state in one step; return it with its revision. Raises KeyError for an unknown job.

        `fenced`: only while the claim with the job's token has it; raises FencedError otherwise. What is not yet
        `announced` will be by `announce`.
        """
        return self._change(job.id, lambda now: job if not fenced or now.token == job.token else None, announced)

    def switch(self, job_id: str, before: tuple[Status, ...], **changes: Any) -> Job:
        """Change a job that has one of these statuses. Raises KeyError, ValueError for another status."""

        def switched(now: Job) -> Job:
            if now.status not in before:
                raise ValueError(f"{job_id} is {now.status.value}, not {' or '.join(each.value for each in before)}")
            return replace(now, **changes)

        return self._change(job_id, switched, announced=False)

    def edit(self, job_id: str, announced: bool = True, **changes: Any) -> Job:
        """Change a job, whatever its status. Raises KeyError."""
        return self._change(job_id, lambda now: replace(now, **changes), announced)

    def announce(self, job: Job) -> None:
        """Append the status to the events; only then `has_ended` says so. What can't be written is logged."""
        again = job.causes[-1] if job.causes and job.status is Status.QUEUED else None
        said = {"status": job.status.value, "error": job.error or again}
        try:
            EventLog(self.path(job.id)).append("status", said)
            self._data.write(lambda rows: rows.execute("UPDATE jobs SET announced = 1 WHERE id = ?", (job.id,)))
        except OSError as error:
            _LOG.error("%s is %s, but the event can't be written: %s", job.id, job.status.value, error)

    def announce_all(self) -> None:
        """Take for said what a process that has ended did not come to say."""
        self._data.write(lambda rows: rows.execute("UPDATE jobs SET announced = 1 WHERE NOT announced"))

    def has_ended(self, job_id: str) -> bool:
        """Whether a job is over and its last event written. Raises KeyError."""
        rows = self._data.read("SELECT status, announced FROM jobs WHERE id = ?", (job_id,))
        if not rows:
            raise KeyError(job_id)
        return rows[0][0] in ENDED and bool(rows[0][1])

    def get(self, job_id: str) -> Job:
        """Return a job. Raises KeyError for an unknown id, DamagedJobError for one whose files could not be read."""
        sql = "SELECT id, spec, state FROM jobs WHERE id = ?"
        if job_id in self.refused:
            self._look(job_id, -1, "")
        if not (rows := self._data.read(sql, (job_id,)) if ID.fullmatch(job_id) else []):
            if (why := self.damaged.get(job_id)) is not None:
                raise DamagedJobError(why)
            raise KeyError(job_id)
        return self._job(*rows[0])

    def list(self, after: str | None = None, limit: int = 20, status: Status | None = None) -> list[Job]:
        """Return up to `limit` jobs, newest first, that are older than the job `after`."""
        wanted = [("id < ?", after), ("status = ?", None if status is None else status.value)]
        where = " AND ".join(sql for sql, value in wanted if value is not None) or "1"
        values = [value for _, value in wanted if value is not None]
        sql = f"SELECT id, spec, state FROM jobs WHERE {where} ORDER BY id DESC LIMIT ?"
        return [self._job(*row) for row in self._data.read(sql, (*values, limit))]

    def counts(self) -> Counter[Status]:
        """Return how many jobs have each status."""
        return Counter({Status(name): n for name, n in self._data.read("SELECT status, count(*) FROM jobs GROUP BY 1")})

    def succeeded(self, kind: str, limit: int) -> Sequence[Job]:
        """Return the newest jobs of a kind that succeeded."""
        sql = "SELECT id, spec, state FROM jobs WHERE status = 'succeeded' AND kind = ? ORDER BY id DESC LIMIT ?"
        return [self._job(*row) for row in self._data.read(sql, (kind, limit))]

    def ahead(self, priority: int) -> int:
        """Return how many jobs run, or would start before a new one of this priority."""
        first = "status = 'running' OR status = 'queued' AND priority >= ?"
        sql = f"SELECT count(*) FROM jobs WHERE kind != 'loop' AND ({first})"
        return int(self._data.read(sql, (priority,))[0][0])

    def of_parent(self, parent: str) -> Job | None:
        """Return the job that was submitted for this."""
        rows = self._data.read("SELECT id, spec, state FROM jobs WHERE parent = ? ORDER BY id LIMIT 1", (parent,))
        return self._job(*rows[0]) if rows else None

    def of_key(self, spec: JobSpec, key: str) -> Job | None:
        """Return the job that was submitted with this key. Raises KeyInUseError for another specification."""
        rows = self._data.read("SELECT id, spec, state FROM jobs WHERE key = ? ORDER BY id LIMIT 1", (key,))
        return _as_asked(self._job(*rows[0]), spec, key) if rows else None

    def running(self, loops: bool) -> Sequence[Job]:
        """Return those that are running, of loops also the paused ones, oldest first."""
        sql = "SELECT id, spec, state FROM jobs WHERE status IN ('running', ?) AND (kind = 'loop') = ? ORDER BY id"
        return [self._job(*row) for row in self._data.read(sql, ("paused" if loops else "", loops))]

    def want(self, job_id: str, what: str | None) -> None:
        """Leave word for who runs it: `CANCEL` or `PAUSE`; None: nothing. Raises KeyError.

        A pause does not replace a cancel that was accepted before.
        """
        sql = "UPDATE jobs SET wanted = CASE WHEN wanted = ? AND ? = ? THEN wanted ELSE ? END WHERE id = ?"

        def leave(rows: sqlite3.Connection) -> None:
            if not rows.execute(sql, (CANCEL, what, PAUSE, what, job_id)).rowcount:
                raise KeyError(job_id)

        self._data.write(leave)

    def wanted(self, job_id: str) -> str | None:
        """Return what `want` left; None also for an unknown job."""
        rows = self._data.read("SELECT wanted FROM jobs WHERE id = ?", (job_id,))
        return rows[0][0] if rows else None

    def changes(self) -> object:
        """Return what differs after any process has changed a job."""
        return self._data.changes()

    def waiting(self, loops: bool = False) -> bool:
        """Whether a job could be claimed."""
        return bool(self._data.read(_READY, (loops,)))

    def claim(self, loops: bool = False, device: str | None = None) -> Job | None:
        """Take the next job, as running under a new token: of those that wait for no other the one of the highest
        priority, among equals the oldest. None: there is none.
        """  # fmt: skip

        def take(rows: sqlite3.Connection) -> Job | None:
            if (found := rows.execute(_READY, (loops,)).fetchone()) is None:
                return None
            rows.execute("UPDATE meta SET value = value + 1 WHERE name = 'token'")
            (token,) = rows.execute("SELECT value FROM meta WHERE name = 'token'").fetchone()
            job = self._job(*found)
            claimed = replace(
                job, status=Status.RUNNING, token=token, attempt=job.attempt + 1, device=device, pid=None,
                process_started=None, started=job.started or utc_now(), revision=job.revision + 1, error=None,
                checkpoint=checkpoint_mark(self.path(job.id)),
            )  # fmt: skip
            write_json(self.path(job.id) / STATE, state_of(claimed))
            self._put(rows, claimed, announced=False)
            return claimed

        return self._data.write(take)

    def hopeless(self) -> tuple[str, str] | None:
        """Return the id of a waiting job that can't start any more, and why; None: there is none."""
        rows = self._data.read(_HOPELESS)
        return (rows[0][0], f"{rows[0][1]}, which it was to follow, is {rows[0][2]}") if rows else None

    def take_in(self) -> None:
        """Make the rows agree with the folders: take in what is newer there, forget what is gone, name what is damaged.

        A file that was not changed since is not read.
        """
        rows = self._data.read("SELECT id, revision, stamps, status FROM jobs")
        seen = {row[0]: (row[1], row[2]) for row in rows}
        entries = self._root.iterdir() if self._root.is_dir() else ()
        there = {path.name for path in entries if ID.fullmatch(path.name)}
        for job_id in sorted(there):
            self._look(job_id, *seen.get(job_id, (-1, "")))
        for job_id in {row[0] for row in rows if row[3] != Status.RUNNING.value} - there:
            self.forget(job_id)  # of one that runs its runner does it

    def forget(self, job_id: str) -> None:
        """Drop the row of a job whose folder is gone or put away."""
        self._data.write(lambda rows: _forget(rows, job_id), in_memory=True)

    def close(self) -> None:
        """Close the database; it is opened again when it is used."""
        self._data.close()

    def _look(self, job_id: str, revision: int, known: str) -> None:
        directory = self._root / job_id
        try:
            found = stamps(directory)
            if not found or (revision < 0 and not (directory / STATE).is_file()):
                if revision >= 0:
                    raise ValueError(f"'{directory / STATE}' and '{SPEC}' are gone")
                return  # never finished being created
            if revision < 0 or _text(found) != known:
                self._data.write(lambda rows: self._take(rows, directory), in_memory=True)
        except OSError as error:
            if error.filename == str(self._root / NAME):
                raise
            self.damaged[job_id] = str(error)
            self.refused.add(job_id)
        except ValueError as error:
            self.damaged[job_id] = str(error)
            self.refused.discard(job_id)
            self.forget(job_id)
        else:
            self.damaged.pop(job_id, None)
            self.refused.discard(job_id)

    def _take(self, rows: sqlite3.Connection, directory: Path) -> None:
        """Take in a folder that is ahead of its row, or that an earlier version wrote, which counts no revisions."""
        stamped, found = stamps(directory), read_folder(directory)
        row = rows.execute("SELECT revision FROM jobs WHERE id = ?", (found.id,)).fetchone()
        if row is None or found.revision > row[0] or not found.revision:
            self._put(rows, replace(found, revision=max(found.revision, row[0] + 1 if row else 1)), announced=True)
            rows.execute("UPDATE meta SET value = max(value, ?) WHERE name = 'token'", (found.token,))
        rows.execute("UPDATE jobs SET stamps = ? WHERE id = ?", (_text(stamped), found.id))

    def _change(self, job_id: str, change: Callable[[Job], Job | None], announced: bool) -> Job:
        """Store what `change` makes of the job, None: another claim has it."""

        def store(rows: sqlite3.Connection) -> Job:
            row = rows.execute("SELECT id, spec, state, wanted FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                raise KeyError(job_id)
            now, wanted = self._job(*row[:3]), row[3]
            if (changed := change(now)) is None:
                raise FencedError(f"{job_id} has been claimed again since")
            job = replace(_obeying(changed, wanted), revision=now.revision + 1)
            if not self.path(job_id).is_dir():
                raise FolderGoneError(job_id)
            write_json(self.path(job_id) / STATE, state_of(job))
            self._put(rows, job, announced, wanted if _at_work(job) else None)
            return job

        try:
            return self._data.write(store)
        except FolderGoneError:
            self.forget(job_id)
            raise

    def _put(self, rows: sqlite3.Connection, job: Job, announced: bool, want: str | None = None) -> None:
        values = (
            job.id, job.spec.kind, job.status.value, job.spec.priority, job.parent, job.key, job.token, job.revision,
            want, announced, json.dumps(dataclasses.asdict(job.spec)), json.dumps(state_of(job)),
            _text(stamps(self.path(job.id))),
        )  # fmt: skip
        rows.execute(f"INSERT OR REPLACE INTO jobs VALUES ({', '.join('?' * len(values))})", values)
        rows.executemany("INSERT OR IGNORE INTO waits VALUES (?, ?)", [(job.id, other) for other in job.spec.after])

    def _earlier(self, rows: sqlite3.Connection, spec: JobSpec, parent: str | None, key: str | None) -> Job | None:
        for name, value in (("parent", parent), ("key", key)):
            sql = f"SELECT id, spec, state FROM jobs WHERE {name} = ? ORDER BY id LIMIT 1"
            if value is not None and (row := rows.execute(sql, (value,)).fetchone()) is not None:
                job = self._job(*row)
                return job if name == "parent" else _as_asked(job, spec, value)
        return None

    def _check_after(self, rows: sqlite3.Connection, spec: JobSpec) -> None:
        for other in spec.after:
            if rows.execute("SELECT 1 FROM jobs WHERE id = ?", (other,)).fetchone() is None:
                raise ValueError(f"'after': there is no job {other}: GET /v1/jobs lists them")

    def _job(self, job_id: str, spec: str, state: str) -> Job:
        with self._specs_lock:
            if (parsed := self._specs.get(job_id)) is not None:
                self._specs.move_to_end(job_id)
        if parsed is None:
            parsed = parse_spec(json.loads(spec))
            with self._specs_lock:
                self._specs[job_id] = parsed
                if len(self._specs) > MAX_SPECS:
                    self._specs.popitem(last=False)
        return job_of(job_id, parsed, json.loads(state))


class FolderGoneError(KeyError):
    """The folder of a job was removed, and so its row is."""


ID_OF_0 = f"job_{0:016x}{0:08x}"


def _as_asked(job: Job, spec: JobSpec, key: str) -> Job:
    """Return the job of a key; raises KeyInUseError when it was asked for otherwise."""
    if job.spec != spec:
        raise KeyInUseError(f"key '{key}' was used for {job.id}, another request: choose another key")
    return job


def _at_work(job: Job) -> bool:
    """Whether its runner will look for what is wanted of it: a loop is at work also while it is paused."""
    return job.status is Status.RUNNING or (job.status is Status.PAUSED and isinstance(job.spec, Loop))


def _obeying(job: Job, wanted: str | None) -> Job:
    """Return the job as it is queued again, unless it was cancelled or paused while it ran."""
    if job.status is not Status.QUEUED or wanted is None:
        return job
    if wanted == PAUSE:
        return replace(job, status=Status.PAUSED)
    return replace(job, status=Status.CANCELLED, error=CANCELLED, finished=utc_now())


def _forget(rows: sqlite3.Connection, job_id: str) -> None:
    rows.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
    rows.execute("DELETE FROM waits WHERE job = ?", (job_id,))


def _text(stamped: Stamps) -> str:
    return json.dumps(stamped)
