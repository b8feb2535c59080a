"""The SQLite file of the index: opened, checked, and replaced where it is damaged. It holds nothing of its own.

Every row has a CRC-32 of its content, since SQLite has none: with the structure check of SQLite itself a flipped bit
is found when the file is opened. A process that has the file open holds a lock beside it: it is replaced only by its
one user. Where it can't be written to, the same tables are kept in memory.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pirl_server.sqlite_files import Result, make_tables, rejected, transact

VERSION = 2
WAIT_S = 5.0
"""for another process's transaction"""
PAGES_KIB = 4096
LABEL_COLUMNS = ("success", "label_source", "note", "author", "labelled", "label_count")
COLUMNS = (
    "id", "robot_id", "created", "seconds", "instruction", "published", "published_source", "end_reason", "sampler",
    "contract_hash", "versions", "calls", "steps", "path", "dry_run", "targets", "human_steps", "digest", "size",
    "mtime_ns", "ctime_ns", "manifest_size", "files", "hot", *LABEL_COLUMNS,
)  # fmt: skip
LABELS = ("id", *LABEL_COLUMNS)
_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE folders (robot_id TEXT PRIMARY KEY, mtime_ns, inode, hot) WITHOUT ROWID;
CREATE TABLE episodes ({", ".join(COLUMNS)}, crc, UNIQUE (id));
CREATE TABLE labels ({", ".join(LABELS)}, crc, UNIQUE (id));
CREATE TABLE bad_labels (line INTEGER PRIMARY KEY, why);
CREATE INDEX by_age ON episodes (created, id);
CREATE INDEX by_robot ON episodes (robot_id, created, id);
CREATE INDEX by_robot_and_outcome ON episodes (robot_id, success, created, id);
CREATE INDEX by_outcome ON episodes (success, created, id);
CREATE INDEX by_instruction ON episodes (instruction, created, id);
CREATE INDEX by_version ON episodes (versions, created, id);
CREATE INDEX by_source ON episodes ((human_steps > 0), created, id);
CREATE INDEX by_contract ON episodes (contract_hash, created, id);
PRAGMA user_version = {VERSION};
"""
_LOG = logging.getLogger(__name__)


def crc_of(columns: Sequence[str]) -> str:
    """SQL that computes the check of a row from these columns."""
    return f"crc32(json_array({', '.join(columns)}))"


class IndexDatabase:
    """One connection, for any thread. Nothing is opened before the first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fresh = False
        """it was empty when it was opened: everything must be read"""
        self._lock = threading.RLock()
        self._found: sqlite3.Connection | None = None
        self._in_memory = False
        self._holder: int | None = None
        self._closing: Callable[[], object] = lambda: None

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows. Raises TimeoutError while another process writes for too long."""
        return self._attempt(lambda: self._connection().execute(sql, values).fetchall())

    def write(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `action` in one transaction, which no other process's overlaps. Raises TimeoutError as `read`.

        It may be run again, on another file: what it does must depend on nothing but what it reads there.
        """
        return self._attempt(lambda: transact(self._connection(), action))

    def damage(self) -> list[str]:
        """Say what is wrong with the structure; return ids of rows whose content changed, `labels` for any of those.

        Replaces a file whose structure is damaged: it is `fresh` then.
        """
        broken = self.read("PRAGMA integrity_check(1)")
        if broken != [("ok",)]:
            with self._lock:
                self._replace(sqlite3.DatabaseError(broken[0][0]))
            return []
        rows = self.read(f"SELECT id FROM episodes WHERE crc IS NOT {crc_of(COLUMNS)}")
        labels = self.read(f"SELECT 1 FROM labels WHERE crc IS NOT {crc_of(LABELS)} LIMIT 1")
        return [str(row[0]) for row in rows] + ["labels"] * len(labels)

    def _attempt(self, action: Callable[[], Result]) -> Result:
        with self._lock:
            try:
                return action()
            except sqlite3.Error as error:
                if _busy(error):
                    raise TimeoutError(f"'{self.path}' is in use by another process: try again") from None
                self._replace(error)
                return action()

    def _connection(self) -> sqlite3.Connection:
        with self._lock:
            if self._found is None:
                self._found = self._open()
                # A connection that is only forgotten keeps its file open.
                self._closing = weakref.finalize(self, self._found.close)
            return self._found

    def _open(self) -> sqlite3.Connection:
        if not self._in_memory:
            try:
                return self._open_file()
            except (OSError, sqlite3.Error) as error:
                if _busy(error):
                    raise
                _LOG.warning("the index of episodes '%s' can't be used (%s): kept in memory", self.path, str(error))
                self._in_memory = True
        self.fresh = True
        return self._prepared(":memory:")

    def _open_file(self) -> sqlite3.Connection:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        if self._holder is None:
            self._holder = os.open(self.path.with_name(f".{self.path.name}.lock"), flags, 0o600)
            weakref.finalize(self, os.close, self._holder)
        fcntl.flock(self._holder, fcntl.LOCK_SH)
        os.close(os.open(self.path, flags, 0o600))
        try:
            return self._prepared(str(self.path))
        except sqlite3.Error as error:
            if _busy(error) or rejected(error) or not self._remove(error):
                raise
            return self._prepared(str(self.path))

    def _prepared(self, name: str) -> sqlite3.Connection:
        connection = sqlite3.connect(name, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.create_function("crc32", 1, lambda text: zlib.crc32(text.encode()), deterministic=True)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", f"cache_size = -{PAGES_KIB}"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            self.fresh |= make_tables(connection, _SCHEMA, VERSION)
        except BaseException:
            connection.close()
            raise
        return connection

    def _replace(self, error: sqlite3.Error) -> None:
        """Begin again with empty tables, in the same place or, where that can't be, in memory."""
        if self._found is not None:
            with suppress(sqlite3.Error):
                self._closing()
            self._found = None
        if self._in_memory:
            raise error
        if rejected(error) or not self._remove(error):
            _LOG.error("the index of episodes '%s' can't be used (%s): rebuilt in memory", self.path, str(error))
            self._in_memory = True
        self.fresh = True

    def _remove(self, error: sqlite3.Error) -> bool:
        """Remove a damaged file, unless another process has it open; say whether it is gone."""
        assert self._holder is not None
        try:
            fcntl.flock(self._holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            for name in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + name).unlink(missing_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError:
            return False
        finally:
            fcntl.flock(self._holder, fcntl.LOCK_SH)
        _LOG.warning("the index of episodes '%s' is damaged (%s): rebuilt from the manifests", self.path, str(error))
        return True


def _busy(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress what the index can't store now: the next list finds it on the disk."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        _LOG.warning("the index of episodes takes no entry now: %s", str(error))
