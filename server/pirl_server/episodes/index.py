"""Summaries of the published episodes in memory, so that a list reads no manifest twice.

A robot's folder is listed again when its time of change has moved: publishing, removing and quarantine all rename
within it. What can't be read is tried again every few seconds, since it may be a copy that is not complete yet.
"""

from __future__ import annotations

import os
import re
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pirl_server.episodes.manifest import DamagedError
from pirl_server.episodes.summary import EpisodeSummary, read_summaries

ID = re.compile(r"[0-9a-f]{32}")
BUSY_S = 5.0
"""how long a caller waits while another one reads the episodes, the first time all of them"""
RETRY_S = 5.0
HOT_NS = 1_000_000_000
"""a folder that changed within this time may change again within the same tick of the clock"""


@dataclass(frozen=True)
class _Folder:
    stamp: tuple[int, int]
    hot: bool
    names: frozenset[str]


_GONE = _Folder((0, 0), False, frozenset())


class EpisodeIndex:
    """The episodes below `published`. Every method may be called from any thread.

    `put_away(home, error)` handles a damaged one and returns the reason to show; `left(id)` gives the reason why one
    that is not there any more was put away, None when it was not.
    """

    def __init__(
        self, published: Path, put_away: Callable[[Path, DamagedError], str], left: Callable[[str], str | None]
    ) -> None:
        self._published, self._put_away, self._left = published, put_away, left
        self._lock = threading.Lock()
        self._folders: dict[str, _Folder] = {}
        self._known: dict[str, EpisodeSummary] = {}
        self._order: list[EpisodeSummary] = []  # replaced, never changed: oldest first
        self._retry: dict[str, tuple[Path, float]] = {}
        self.damaged: dict[str, str] = {}
        """ids that can't be read, and why"""

    def known(self, episode_id: str) -> EpisodeSummary | None:
        """Return what was read of an episode; it may be gone since. Never waits."""
        return self._known.get(episode_id)

    def newest_first(self, after: str | None = None) -> Iterator[EpisodeSummary]:
        """Return all, or those older than `after`; look at the disk first.

        Raises KeyError when there is no such episode, TimeoutError while another thread reads too many.
        """
        self._refresh()
        order = self._order
        end = len(order) if after is None else bisect_left(order, _age(self._known[after]), key=_age)
        return islice(reversed(order), len(order) - end, None)

    def _refresh(self) -> None:
        with self._reading():
            added, removed = self._scan()
            for name in removed:
                self._forget(name)
            due = time.monotonic()
            added += [home for home, at in self._retry.values() if at <= due]
            if self._read(added) or removed:
                self._order = sorted(self._known.values(), key=_age)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=BUSY_S):
            raise TimeoutError("the summaries of the episodes are still being read: try again in a few seconds")
        try:
            yield
        finally:
            self._lock.release()

    def _scan(self) -> tuple[list[Path], list[str]]:
        """Return the directories that came and the ids that went; list only the folders that may have changed."""
        folders, added = dict[str, _Folder](), list[Path]()
        with os.scandir(self._published) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders[entry.name] = self._folder(entry)
        removed = list[str]()
        for robot, before in self._folders.items():
            if (now := folders.get(robot, _GONE)) is not before:
                removed += before.names - now.names
        for robot, now in folders.items():
            if (before := self._folders.get(robot, _GONE)) is not now:
                added += [self._published / robot / name for name in now.names - before.names]
        self._folders = folders
        return added, removed

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)
        self._retry.pop(name, None)
        self.damaged.pop(name, None)
        if (reason := self._left(name)) is not None:
            self.damaged[name] = reason

    def _folder(self, entry: os.DirEntry[str]) -> _Folder:
        stat, before = entry.stat(follow_symlinks=False), self._folders.get(entry.name)
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if before is not None and before.stamp == stamp and not before.hot:
            return before
        hot = time.time_ns() - stat.st_mtime_ns < HOT_NS
        with os.scandir(entry) as homes:
            names = frozenset(
                home.name for home in homes if ID.fullmatch(home.name) and home.is_dir(follow_symlinks=False)
            )
        return _Folder(stamp, hot, names)

    def _read(self, homes: list[Path]) -> bool:
        """Take in what is new; say whether an episode came."""
        came = False
        for home, found in zip(homes, read_summaries(homes)):
            name = home.name
            if isinstance(found, EpisodeSummary):
                self._known[name], came = found, True
                self._retry.pop(name, None)
                self.damaged.pop(name, None)
                continue
            self._retry[name] = home, time.monotonic() + RETRY_S
            self.damaged[name] = self._put_away(home, found) if isinstance(found, DamagedError) else str(found)
        return came


def _age(summary: EpisodeSummary) -> tuple[str, str]:
    return summary.created, summary.id
