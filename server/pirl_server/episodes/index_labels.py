"""The newest label of each episode as rows of the index, kept in step with the log of labels.

How much of the log the rows contain stands beside them, with its SHA-256: a log that was repaired or changed is read
from its beginning. Lines are read within a transaction, so that no process puts an older label over a newer one.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from typing import Any

from pirl_server.episodes import index_rows
from pirl_server.episodes.index_database import IndexDatabase
from pirl_server.episodes.labels import LabelLog

_NO_BYTES = hashlib.sha256().hexdigest()


class LabelRows:
    """Of one index. Any thread."""

    def __init__(self, database: IndexDatabase, log: LabelLog) -> None:
        self._database, self.log = database, log
        self._lock = threading.Lock()
        self._started = False
        self._seen: tuple[int, int, int] | None = None
        self._hashed: tuple[int, Any] = 0, hashlib.sha256()
        """of the log: how many bytes, and the hash that takes in further ones"""
        self.damaged: tuple[str, ...] = ()
        """lines that could not be read, each with the reason"""

    def start(self, trusted: bool) -> None:
        """Compare what the rows contain with the log; without `trusted`, or where it differs, begin again."""
        with self._lock:
            self._start(trusted)

    def sync(self) -> None:
        """Take in the whole lines that were added since; all of them when the file was replaced, or is shorter."""
        with self._lock:
            if not self._started:
                self._start(trusted=True)
            stamp = self.log.stamp()
            before, self._seen = self._seen, stamp
            if stamp == before:
                return
            try:
                # Lines are only ever added: another file, or one of the same length, was changed by other hands.
                changed = before is not None and (stamp[2] != before[2] or stamp[0] <= before[0])
                if (changed or self.damaged) and not self._same():
                    self._database.write(self._begin_again)
                self._database.write(self._read_on)
                rows = self._database.read("SELECT why FROM bad_labels ORDER BY line")
                self.damaged = tuple(str(row[0]) for row in rows)
            except BaseException:
                self._seen = before
                raise

    def _start(self, trusted: bool) -> None:
        self._seen = None
        if not trusted or not self._same():
            self._database.write(self._begin_again)
        self._started = True

    def _same(self) -> bool:
        rows = dict(self._database.read("SELECT name, value FROM meta"))
        size = int(rows.get("label_bytes", 0))
        if self.log.stamp()[0] < size or "labels_missed" in rows:
            return False
        self._hashed = size, self.log.digest(size)
        return bool(self._hashed[1].hexdigest() == rows.get("label_sha256", _NO_BYTES))

    def _begin_again(self, connection: sqlite3.Connection) -> None:
        """Read the log from its beginning, and name what it no longer has until it is restored."""
        missed = dict(connection.execute("SELECT name, value FROM meta")).get("labels_missed", 0)
        before = int(missed) + _count(connection)
        connection.execute("DELETE FROM meta")
        connection.execute("DELETE FROM bad_labels")
        index_rows.forget_labels(connection)
        self._read_on(connection)
        ((named,),) = connection.execute("SELECT count(*) FROM bad_labels")
        if (missed := before - _count(connection) - int(named)) > 0:
            why = f"'{self.log.path}' lacks {missed} labels that it had: restore it, or delete the index to accept that"
            connection.execute("INSERT INTO bad_labels VALUES (0, ?)", (why,))
            connection.execute("INSERT INTO meta VALUES ('labels_missed', ?)", (missed,))

    def _read_on(self, connection: sqlite3.Connection) -> None:
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        size, lines = int(meta.get("label_bytes", 0)), int(meta.get("label_lines", 0))
        raw = self.log.whole_lines(size)
        if not raw:
            return
        touched = dict[str, None]()
        for line in self.log.parse(raw, lines):
            if (found := line.label) is None:
                connection.execute("INSERT OR REPLACE INTO bad_labels VALUES (?, ?)", (line.number, line.fault))
                continue
            success = None if found.success is None else int(found.success)
            values = (success, found.source, found.note, found.author, found.at)
            index_rows.put_label(connection, line.episode, values)
            touched[line.episode] = None
        for episode_id in touched:
            index_rows.label(connection, episode_id)
        digest = self._hashed[1].copy() if self._hashed[0] == size else self.log.digest(size)
        digest.update(raw)
        self._hashed = size + len(raw), digest
        rows = {
            "label_bytes": size + len(raw),
            "label_lines": lines + raw.count(b"\n"),
            "label_sha256": digest.hexdigest(),
        }
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(rows.items()))


def _count(connection: sqlite3.Connection) -> int:
    ((count,),) = connection.execute("SELECT ifnull(sum(label_count), 0) FROM labels")
    return int(count)
