"""Damaged episodes: moved to a folder beside the store, each with its reason, and named from a process's start on."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pirl_server.atomic_files import quarantine
from pirl_server.episodes import manifest
from pirl_server.episodes.manifest import DamagedError

SETTLED_S = 60.0
"""a damaged episode whose manifest is newer stays where it is"""
HOT_NS = 2_000_000_000
"""the folder is looked at again for so long after it changed: times have ticks"""
_LOG = logging.getLogger(__name__)


class Quarantined:
    """The folder of one store. Any thread; other processes may put episodes there too."""

    def __init__(self, root: Path) -> None:
        self.folder = root.with_name("quarantine") / root.name
        self._since_ns, self._stamp = time.time_ns(), 0
        self._seen: dict[str, str] = {}

    def put_away(self, home: Path, error: DamagedError) -> str:
        """Move a damaged episode here, unless it is so new that it may be a copy on its way; say why."""
        try:
            if time.time() - (home / manifest.NAME).stat().st_mtime < SETTLED_S:
                return str(error)
            moved = quarantine(home, self.folder, str(error))
        except OSError as refused:
            return f"{error}; it can't be moved to '{self.folder}': {refused.strerror}"
        _LOG.error("%s; it was moved to '%s'", str(error), moved)
        return f"{error}; it was moved to '{moved}'"

    def reasons(self) -> Mapping[str, str]:
        """Return why episodes were put here since the start, by id."""
        with suppress(FileNotFoundError):
            stamp = self.folder.stat().st_mtime_ns
            if stamp != self._stamp or time.time_ns() - stamp < HOT_NS:
                self._stamp = stamp
                for path in self.folder.glob("*.reason.txt"):
                    if path.stat().st_mtime_ns >= self._since_ns - HOT_NS // 2:
                        episode_id = path.name.split(".")[0].split("-")[0]
                        self._seen[episode_id] = f"'{path}': {path.read_text(errors='replace').strip()}"
        return self._seen
