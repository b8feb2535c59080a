"""Labels given after an episode was published: one JSON line each, the newest of an episode counts.

The episode itself stays as it was sealed; readers of the store get the newest label. A line that a crash
cut off is no label, and the next one begins on a line of its own.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import append_line, locked, sync, utc_now


@dataclass(frozen=True)
class Label:
    """A label of an episode; `success` None retracts the one before."""

    success: bool | None
    source: str
    """operator, sim or classifier; empty when it is taken back"""


class Labels:
    """The file of one store. Any number of threads and processes may read and write."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._read_bytes = 0
        self._newest: dict[str, Label] = {}

    def append(self, episode_id: str, label: Label, note: str) -> None:
        """Add a label: on the disk when this returns."""
        line = {"episode": episode_id, "success": label.success, "source": label.source, "note": note, "at": utc_now()}
        with locked(self._path.with_suffix(".lock")):
            if _cut_off(self._path):
                with self._path.open("ab", buffering=0) as file:
                    file.write(b"\n")
            append_line(self._path, line)
            sync(self._path)
            sync(self._path.parent)

    def newest(self, episode_id: str) -> Label | None:
        """Return the label that counts, None when there was none after publication."""
        with self._lock:
            self._read_on()
            return self._newest.get(episode_id)

    def _read_on(self) -> None:
        """Take in the whole lines that were added since: the file only grows."""
        if not self._path.exists() or self._path.stat().st_size == self._read_bytes:
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self._read_bytes += len(whole) + 1
        for line in whole.splitlines():
            if (entry := _entry(line)) is not None:
                self._newest[entry[0]] = entry[1]


def _entry(line: bytes) -> tuple[str, Label] | None:
    try:
        raw: dict[str, Any] = json.loads(line)
        return str(raw["episode"]), Label(raw["success"], str(raw["source"]))
    except (ValueError, KeyError, TypeError):
        return None


def _cut_off(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
