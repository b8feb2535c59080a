"""Removing episodes that are no longer needed: which ones, what protects them, and the thread that does it in a server.

Without `force` no labelled success goes, no episode of a dataset, and none that a running job reads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from pirl_server.atomic_files import locked
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.index_rows import EpisodeEntry
from pirl_server.episodes.store import ANY, EpisodeStore

EVERY_S = 3600.0
LONGEST_DAYS = 365_000.0
"""before it there are no dates"""
SUCCESS, DATASET, READ = "labelled a success", "part of a dataset", "read by a running job"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """What to remove: of the selection, what is older than the limit; with `keep_bytes` the oldest, until so much is
    left of all episodes.
    """  # fmt: skip

    selection: EpisodeSelection = ANY
    older_than_days: float | None = None
    keep_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for rules that would remove everything."""
        if (self.selection, self.older_than_days, self.keep_bytes) == (ANY, None, None):
            raise ValueError("nothing says which episodes to remove: give an age, a size, or a selection")


@dataclass(frozen=True)
class Plan:
    """What would be removed, oldest first, and what stays although the rules say otherwise."""

    remove: tuple[EpisodeEntry, ...]
    protected: tuple[tuple[EpisodeEntry, str], ...]
    """with the reason"""
    bytes_now: int
    """of all episodes"""

    @property
    def bytes_removed(self) -> int:
        """Of those that would be removed."""
        return sum(each.size for each in self.remove)


def plan(store: EpisodeStore, rules: Retention, force: bool = False) -> Plan:
    """Choose. Raises ValueError for a dataset that can't be read, TimeoutError as `EpisodeStore.select`."""
    chosen = rules.selection
    if rules.older_than_days is not None:
        age = timedelta(days=min(rules.older_than_days, LONGEST_DAYS))
        oldest = (datetime.now(timezone.utc) - age).isoformat()
        chosen = replace(chosen, until=oldest if chosen.until is None else min(oldest, chosen.until))
    datasets, read = store.datasets.ids(), store.leases.read()
    remove, kept = list[EpisodeEntry](), list[tuple[EpisodeEntry, str]]()
    found = list(store.select(chosen))
    _, now = store.totals()
    left = now
    for each in reversed(found):
        if rules.keep_bytes is not None and left <= rules.keep_bytes:
            break
        if not force and (why := protection(each, datasets, read)):
            kept.append((each, why))
            continue
        remove.append(each)
        left -= each.size
    return Plan(tuple(remove), tuple(kept), now)


def protection(entry: EpisodeEntry, datasets: set[str], read: set[str] | None) -> str:
    """Return why an episode is not removed without `force`; empty: it may be."""
    if entry.summary.success:
        return SUCCESS
    if entry.summary.id in datasets:
        return DATASET
    return READ if read is None or entry.summary.id in read else ""


def remove(store: EpisodeStore, entries: Iterable[EpisodeEntry], force: bool = False) -> tuple[int, int]:
    """Remove these, but for what is protected by now; return how many were, and their bytes. Raises OSError."""
    count = size = 0
    for each in entries:
        with locked(store.leases.lock):  # no job begins to read meanwhile
            try:
                now = store.entry(each.summary.id)
            except KeyError:
                continue  # another one removed it
            if not force and protection(now, store.datasets.ids(), store.leases.read()):
                continue
            store.remove(each.summary.id)
        count, size = count + 1, size + each.size
    return count, size


class Janitor:
    """Applies the rules, one after the other, when it begins and every hour."""

    def __init__(self, store: EpisodeStore, rules: Sequence[Retention], every_s: float = EVERY_S) -> None:
        self._store, self._rules, self._every_s = store, rules, every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Remove no more."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                for rules in self._rules:
                    count, size = remove(self._store, plan(self._store, rules).remove)
                    if count:
                        _LOG.info("removed %d episodes, %d MiB, as the settings say", count, size >> 20)
            except (ValueError, OSError) as error:
                _LOG.error("episodes that are no longer needed can't be removed: %s", error)
            if self._closing.wait(self._every_s):
                return
