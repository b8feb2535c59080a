"""The SQLite file of the jobs: transactions of several processes, and another file where it is damaged.

Every change happens in a transaction that no other overlaps (BEGIN IMMEDIATE) and is on the disk when it returns. A
process that finds the file damaged puts it away and begins with empty tables; the others notice before their next
change. Where the disk allows no file, tables in memory are filled for reading only.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import quarantine
from pirl_server.sqlite_files import Result, make_tables, rejected, transact

NAME = "jobs.sqlite"
VERSION = 1
WAIT_S = 10.0
"""for another process's transaction"""
AGAIN_S = 1.0
"""between two looks whether the disk allows a file again"""
_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE jobs (id TEXT PRIMARY KEY, kind TEXT, status TEXT, priority INTEGER, parent TEXT, key TEXT,
 token INTEGER, revision INTEGER, wanted TEXT, announced INTEGER, spec TEXT, state TEXT, stamps TEXT) WITHOUT ROWID;
CREATE TABLE waits (job TEXT, other TEXT, PRIMARY KEY (job, other)) WITHOUT ROWID;
CREATE INDEX by_status ON jobs (status, kind, priority, id);
CREATE INDEX by_status_and_id ON jobs (status, id);
CREATE INDEX by_parent ON jobs (parent);
CREATE INDEX by_key ON jobs (key);
INSERT INTO meta VALUES ('token', 0);
PRAGMA user_version = {VERSION};
"""
_LOG = logging.getLogger(__name__)


class JobDatabase:
    """One connection, for any thread. `fill` is called with tables that are empty.

    All methods raise OSError for what the disk, or another process for `WAIT_S`, does not allow.
    """

    def __init__(self, path: Path, put_away: Path, fill: Callable[[], None]) -> None:
        self._path, self._put_away, self._fill = path, put_away, fill
        self._lock = threading.RLock()
        self._file: sqlite3.Connection | None = None
        self._memory: sqlite3.Connection | None = None
        self._inode = 0
        self._guard: int | None = None
        self._guards = self._written = 0
        self._again_at = 0.0

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows; of the tables in memory where the disk allows no file."""
        with self._lock:
            if self._file is None and self._memory is None:
                with suppress(OSError):
                    self.open()
            if self._memory is not None and time.monotonic() > self._again_at:
                self._again_at = time.monotonic() + AGAIN_S
                with suppress(OSError):
                    self.open()
            if self._memory is not None:
                return self._memory.execute(sql, values).fetchall()
            return self._attempt(lambda: self._opened().execute(sql, values).fetchall())

    def write(self, action: Callable[[sqlite3.Connection], Result], in_memory: bool = False) -> Result:
        """Run `action` in one transaction. It may be run again, on another file.

        `in_memory`: on the tables in memory where there is no file.
        """
        with self._lock:
            if in_memory and self._memory is not None:
                return action(self._memory)
            self.open()
            return self._attempt(lambda: self._transact(action))

    def changes(self) -> object:
        """Return what differs after any process has changed something."""
        return self._inode, self._written, self.read("PRAGMA data_version")

    def open(self) -> None:
        """Open the file. Where the disk rejects it, `read` gives what `fill` has put into memory."""
        with self._lock:
            try:
                self._attempt(self._opened)
            except OSError:
                if self._memory is None:
                    self._memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                    make_tables(self._memory, _SCHEMA, VERSION)
                    self._fill()
                raise

    def close(self) -> None:
        """Close the file; it is opened again when it is used."""
        with self._lock:
            for each in (self._file, self._memory):
                if each is not None:
                    with suppress(sqlite3.Error):
                        each.close()
            self._file = self._memory = None

    def _attempt(self, action: Callable[[], Result]) -> Result:
        """Run it, on another file when this one is damaged."""
        try:
            with self._guarded(fcntl.LOCK_SH):
                return action()
        except sqlite3.Error as error:
            if rejected(error):
                raise _rejection(error, self._path) from None
            self._replace(error)
        try:
            with self._guarded(fcntl.LOCK_SH):
                self._opened()
                return action()
        except sqlite3.Error as error:
            raise _rejection(error, self._path) from None

    def _transact(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        result = transact(self._opened(), action)
        self._written += 1
        return result

    def _opened(self) -> sqlite3.Connection:
        """Return the connection to the file that lies there now: another process may have replaced it."""
        with suppress(FileNotFoundError):
            if self._file is not None and os.stat(self._path).st_ino == self._inode:
                return self._file
        if self._file is not None:
            self.close()
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        self._inode = os.stat(self._path).st_ino
        found = _connect(self._path)
        self._file, memory, self._memory = found, self._memory, None
        if memory is not None:
            memory.close()
        self._fill()
        return found

    def _replace(self, error: sqlite3.Error) -> None:
        """Put the damaged file away, unless another process has done it."""
        with self._guarded(fcntl.LOCK_EX):
            if self._path.exists() and os.stat(self._path).st_ino == self._inode:
                _LOG.error("the database of jobs '%s' is damaged (%s): rebuilt from their folders", self._path, error)
                for name in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + name).unlink(missing_ok=True)
                quarantine(self._path, self._put_away, str(error))
            self.close()

    @contextmanager
    def _guarded(self, how: int) -> Iterator[None]:
        """Hold the lock that parts changes (shared) from a replacement of the file (exclusive). May be nested."""
        if self._guard is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._guard = os.open(self._path.with_name(f".{self._path.name}.lock"), flags, 0o600)
        if not self._guards or how == fcntl.LOCK_EX:
            fcntl.flock(self._guard, how)
        self._guards += 1
        try:
            yield
        finally:
            self._guards -= 1
            if not self._guards:
                fcntl.flock(self._guard, fcntl.LOCK_UN)

    def __del__(self) -> None:
        if self._guard is not None:
            os.close(self._guard)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(str(path), timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 200"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        make_tables(connection, _SCHEMA, VERSION)
        if (broken := connection.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
            raise sqlite3.DatabaseError(str(broken[0]))
    except BaseException:
        connection.close()
        raise
    return connection


def _rejection(error: Exception, path: Path) -> OSError:
    if isinstance(error, OSError):
        return error
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    number = errno.ENOSPC if full else errno.EIO
    return OSError(number, os.strerror(number) if full else str(error), str(path))
