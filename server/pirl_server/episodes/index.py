"""The index of a store: one row per published episode, in SQLite beside it, so that a list reads no manifest.

The manifests and the log of labels are the truth. At the first use in a process each row's manifest is looked at, not
read; what changed, came or vanished meanwhile is read again. From then on a robot's folder is listed again only when
its time of change has moved by other hands than a store's: publishing adds its own row. What can't be read is tried
again every few seconds, since it may be a copy that is not complete yet.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pirl_server.episodes import index_rows, manifest
from pirl_server.episodes.index_database import IndexDatabase, quiet
from pirl_server.episodes.index_labels import LabelRows
from pirl_server.episodes.index_rows import ENTRY, EpisodeEntry, Known
from pirl_server.episodes.labels import LabelLog
from pirl_server.episodes.manifest import DamagedError
from pirl_server.episodes.quarantined import Quarantined
from pirl_server.episodes.query import Condition, reason, where
from pirl_server.episodes.summary import EpisodeRecord, read_records, stamp_of

NAME = "index.sqlite"
ID = re.compile(r"[0-9a-f]{32}")
BUSY_S = 5.0
"""how long a caller waits while another one reads the episodes, the first time all of them"""
RETRY_S = 5.0
HOT_NS = 1_000_000_000
"""what changed within this time may change again within the same tick of the clock"""
YOUNG_NS = 60_000_000_000
"""a manifest that changed within this time before the start is read again: its episode may be a copy on its way"""
COLD, LISTED_HOT, PUBLISHED = 0, 1, 2
READ_STEP = 5000
"""manifests that are read, and kept, at a time"""
WALK_STEP = 1000
Cursor: TypeAlias = "tuple[str, str]"
"""created and id of the last episode of a page"""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Folder:
    """A robot's folder when it was listed, or published into."""

    mtime_ns: int
    inode: int
    hot: int
    """COLD, LISTED_HOT or PUBLISHED"""

    def unchanged(self, stat: os.stat_result) -> bool:
        """Whether its rows say what it holds."""
        if (self.mtime_ns, self.inode) != (stat.st_mtime_ns, stat.st_ino):
            return False
        # Other hands may have changed it within the same tick as a store: looked at once, when that is over.
        settling = self.hot == PUBLISHED and time.time_ns() - stat.st_mtime_ns < HOT_NS
        return self.hot == COLD or settling


class EpisodeIndex:
    """The episodes below `published`. Every method may be called from any thread, and by many processes."""

    def __init__(self, root: Path, published: Path, labels: LabelLog, quarantined: Quarantined) -> None:
        self._published, self._quarantined = published, quarantined
        self._database = IndexDatabase(root / NAME)
        self.labels = LabelRows(self._database, labels)
        self._lock = threading.Lock()
        self._checked = False
        self._retry: dict[str, tuple[Path, float]] = {}
        self.damaged: dict[str, str] = {}
        """ids that can't be read, and why"""

    def refresh(self) -> None:
        """Look at the disk and bring the rows up to date. Raises TimeoutError while another thread reads too many."""
        with self._reading():
            first = not self._checked or self._database.fresh
            if first:
                self._check()
            self._scan(everything=first)
            self.labels.sync()
            self._checked, self._database.fresh = True, False
            self.damaged |= {name: why for name, why in self._quarantined.reasons().items() if not self._has(name)}

    def find(self, episode_id: str) -> EpisodeEntry | None:
        """Return what the index has of an episode; it may be gone since. Looks at no file but the log of labels."""
        self.labels.sync()
        rows = self._database.read(f"SELECT {ENTRY} FROM episodes WHERE id = ?", (episode_id,))
        return index_rows.entry(rows[0]) if rows else None

    def entry_of(self, record: EpisodeRecord) -> EpisodeEntry:
        """Return what the index would have of an episode that was just read."""
        rows = self._database.read(f"SELECT {index_rows.LABEL} FROM labels WHERE id = ?", (record.summary.id,))
        return index_rows.entry_of(record, rows[0] if rows else None)

    def select(self, found: Sequence[Condition], limit: int, after: Cursor | None = None) -> list[EpisodeEntry]:
        """Return so many of those that are kept and older than `after`, newest first."""
        sql, values = where(found)
        if after is not None:
            sql, values = f"({sql}) AND (created, id) < (?, ?)", (*values, *after)
        order = f"SELECT {ENTRY} FROM episodes WHERE {sql} ORDER BY created DESC, id DESC LIMIT {limit}"
        return [index_rows.entry(row) for row in self._database.read(order, values)]

    def walk(self, found: Sequence[Condition]) -> Iterator[EpisodeEntry]:
        """Yield all that are kept, newest first, however many; what is newer than the first is not among them."""
        after: Cursor | None = None
        while step := self.select(found, WALK_STEP, after):
            yield from step
            after = step[-1].cursor
            if len(step) < WALK_STEP:
                return

    def left_out(self, found: Sequence[Condition]) -> dict[str, int]:
        """Count all episodes by the first condition that leaves them out, in that order; those that are kept by ''."""
        sql, values = reason(found)
        rows = self._database.read(f"SELECT {sql} AS why, count(*) FROM episodes GROUP BY why", values)
        counts = {str(why): int(count) for why, count in rows}
        return {why: counts[why] for why in ("", *(each.reason for each in found)) if why in counts}

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the digests of those of these that there are, by id."""
        sql = "SELECT id, digest FROM episodes WHERE id IN (SELECT value FROM json_each(?))"
        return {str(row[0]): str(row[1]) for row in self._database.read(sql, (json.dumps(ids),))}

    def totals(self) -> tuple[int, int]:
        """Return how many episodes there are, and their bytes."""
        ((count, size),) = self._database.read("SELECT count(*), ifnull(sum(size), 0) FROM episodes")
        return int(count), int(size)

    def changed(self, entries: Sequence[EpisodeEntry]) -> bool:
        """Look at the manifests of these, and read those again that are not what they were; say whether any was."""
        homes = [self._published / each.summary.robot_id / each.summary.id for each in entries]
        stale = [home for home, each in zip(homes, entries) if _stamp(home) != each.stamp]
        if stale:
            with self._reading():
                self._take_in(stale)
        return bool(stale)

    def folder(self, robot_id: str) -> os.stat_result | None:
        """Look at a robot's folder, before an episode is renamed into it; None where there is none."""
        try:
            return os.stat(self._published / robot_id, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def add(self, record: EpisodeRecord, before: os.stat_result | None) -> None:
        """Add what was just published; `before` is the robot's folder as it was. Never fails: a list would find it."""
        robot_id = record.summary.robot_id
        with quiet():
            after = os.stat(self._published / robot_id)

            def put(connection: sqlite3.Connection) -> None:
                index_rows.put(connection, record, hot=False)
                # Only from the state that the index knows: another change in between must still be seen.
                known = (before.st_mtime_ns, before.st_ino) if before else (0, 0)
                connection.execute(
                    "UPDATE folders SET mtime_ns = ?, inode = ?, hot = ?"
                    " WHERE robot_id = ? AND mtime_ns = ? AND inode = ?",
                    (after.st_mtime_ns, after.st_ino, PUBLISHED, robot_id, *known),
                )

            self._database.write(put)

    def remove(self, episode_id: str) -> None:
        """Forget an episode that was removed. Never fails, as `add`."""
        with quiet():
            self._database.write(lambda connection: index_rows.drop(connection, [episode_id]))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=BUSY_S):
            raise TimeoutError("the episodes are still being read for the index: try again in a few seconds")
        try:
            yield
        finally:
            self._lock.release()

    def _has(self, episode_id: str) -> bool:
        return bool(self._database.read("SELECT 1 FROM episodes WHERE id = ?", (episode_id,)))

    def _check(self) -> None:
        """Find what was changed in the file of the index itself."""
        damaged = self._database.damage()
        if damaged:
            _LOG.warning("the index of episodes has %d damaged rows: read again", len(damaged))
            self._database.write(lambda connection: index_rows.drop(connection, damaged))
        self.labels.start(trusted="labels" not in damaged)

    def _scan(self, everything: bool) -> None:
        """Take in what came to the folders that may have changed, and forget what went."""
        before = self._folders()
        listed, added = dict[str, _Folder](), list[Path]()
        gone = list[str]()
        present = set[str]()
        with os.scandir(self._published) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    continue
                present.add(entry.name)
                stat = entry.stat(follow_symlinks=False)
                known = before.get(entry.name)
                if everything or known is None or not known.unchanged(stat):
                    hot = LISTED_HOT if time.time_ns() - stat.st_mtime_ns < HOT_NS else COLD
                    listed[entry.name] = _Folder(stat.st_mtime_ns, stat.st_ino, hot)
                    came, went = self._list(Path(entry.path), everything)
                    added, gone = added + came, gone + went
        lost = before.keys() - present
        if lost or everything:
            gone += self._of_no_folder(present)
        due = time.monotonic()
        added += [home for home, at in self._retry.values() if at <= due and home.name not in gone]
        self._take_in(added)
        came_elsewhere = {home.name for home in added}
        gone = [name for name in gone if name not in came_elsewhere]
        listed = {name: each for name, each in listed.items() if before.get(name) != each}
        if listed or gone or lost:
            self._forget(gone, listed, lost)

    def _folders(self) -> dict[str, _Folder]:
        rows = self._database.read("SELECT robot_id, mtime_ns, inode, hot FROM folders")
        return {robot_id: _Folder(mtime_ns, inode, hot) for robot_id, mtime_ns, inode, hot in rows}

    def _list(self, folder: Path, everything: bool) -> tuple[list[Path], list[str]]:
        """Return the directories that came, or whose manifest is another than it was, and the ids that went."""
        # The rows first: what another process adds in between has come, and has not gone.
        rows = self._database.read(f"SELECT {index_rows.KNOWN} FROM episodes WHERE robot_id = ?", (folder.name,))
        known = {row[0]: Known(*row) for row in rows}
        with os.scandir(folder) as entries:
            names = {each.name for each in entries if ID.fullmatch(each.name) and each.is_dir(follow_symlinks=False)}
        waiting = {name for name, (home, _) in self._retry.items() if home.parent == folder}
        came = names - known.keys() - waiting
        if everything:
            young_ns = time.time_ns() - YOUNG_NS
            came |= {name for name in names & known.keys() if not _as_it_was(folder / name, known[name], young_ns)}
        return [folder / name for name in sorted(came)], sorted((known.keys() | waiting) - names)

    def _of_no_folder(self, present: set[str]) -> list[str]:
        rows = self._database.read("SELECT DISTINCT robot_id FROM episodes")
        gone = list[str]()
        for (robot_id,) in rows:
            if robot_id not in present:
                ids = self._database.read("SELECT id FROM episodes WHERE robot_id = ?", (robot_id,))
                gone += [str(row[0]) for row in ids]
        return gone

    def _forget(self, gone: Sequence[str], listed: Mapping[str, _Folder], lost: set[str]) -> None:
        for name in gone:
            self._retry.pop(name, None)
            self.damaged.pop(name, None)

        def update(connection: sqlite3.Connection) -> None:
            index_rows.drop(connection, gone)
            connection.executemany("DELETE FROM folders WHERE robot_id = ?", [(name,) for name in lost])
            rows = [(name, each.mtime_ns, each.inode, each.hot) for name, each in listed.items()]
            connection.executemany("INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?)", rows)

        self._database.write(update)

    def _take_in(self, homes: Sequence[Path]) -> None:
        """Read these, keep the rows of those that can be read, and name the others."""
        for start in range(0, len(homes), READ_STEP):
            step = homes[start : start + READ_STEP]
            records, others = list[EpisodeRecord](), list[str]()
            for home, found in zip(step, read_records(step)):
                if isinstance(found, EpisodeRecord):
                    records.append(found)
                    self._retry.pop(home.name, None)
                    self.damaged.pop(home.name, None)
                    continue
                others.append(home.name)
                self._retry[home.name] = home, time.monotonic() + RETRY_S
                self.damaged[home.name] = (
                    self._quarantined.put_away(home, found) if isinstance(found, DamagedError) else str(found)
                )
            self._database.write(partial(_replace, records=records, others=others))


def _replace(connection: sqlite3.Connection, records: Sequence[EpisodeRecord], others: Sequence[str]) -> None:
    now = time.time_ns()
    index_rows.drop(connection, others)
    for record in records:
        index_rows.put(connection, record, hot=now - record.stamp[1] < HOT_NS)


def _stamp(home: Path) -> tuple[int, int, int] | None:
    try:
        return stamp_of(os.stat(f"{home}/{manifest.NAME}"))
    except OSError:
        return None


def _as_it_was(home: Path, known: Known, young_ns: int) -> bool:
    """Whether manifest and, where their sizes are known, files are what was read; not for certain of a young one."""
    stamp = _stamp(home)
    if stamp != known.stamp or known.hot or stamp[1] >= young_ns:
        return False
    try:
        return all(os.stat(f"{home}/{name}").st_size == size for name, size in known.sizes())
    except (OSError, ValueError):
        return False
