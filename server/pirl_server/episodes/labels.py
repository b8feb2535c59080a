"""Labels given after an episode was published: one JSON line each, the newest of an episode counts.

The episode itself stays as it was sealed; readers of the store get the newest label. Each line has a check of its own
content, but for those of earlier versions. One that can't be read is no label, and is named: a crash cut it off, or it
was changed. The next one begins on a line of its own.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import append_line, locked, sync, utc_now

_FIELDS = {"episode", "success", "source", "note", "at"}


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
        self._read_bytes, self._read_lines = 0, 0
        self._newest: dict[str, Label] = {}
        self.damaged: tuple[str, ...] = ()
        """lines that could not be read, each with the reason"""

    def append(self, episode_id: str, label: Label, note: str) -> None:
        """Add a label: on the disk when this returns."""
        line = {"episode": episode_id, "success": label.success, "source": label.source, "note": note, "at": utc_now()}
        with locked(self._path.with_suffix(".lock")):
            append_line(self._path, line | {"check": _check(line)})
            sync(self._path)
            sync(self._path.parent)

    def newest(self) -> Mapping[str, Label]:
        """Return the labels that count, by episode; none for those that were not labelled after publication."""
        with self._lock:
            self._read_on()
            return self._newest

    def _read_on(self) -> None:
        """Take in the whole lines that were added since; all of them when the file was repaired, and is shorter."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size == self._read_bytes:
            return
        if size < self._read_bytes:
            self._read_bytes, self._read_lines, self._newest, self.damaged = 0, 0, {}, ()
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return
        self._read_bytes += len(whole) + 1
        for line in whole.split(b"\n"):
            self._read_lines += 1
            try:
                self._take(line)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                why = f"'{self._path}', line {self._read_lines} can't be read and counts for nothing: {error}"
                self.damaged = (*self.damaged, why)

    def _take(self, line: bytes) -> None:
        if not line:
            return
        raw: dict[str, Any] = json.loads(line)
        check = raw.pop("check", None)
        if raw.keys() != _FIELDS or (check is not None and check != _check(raw)):
            raise ValueError("it was changed after it was written")
        if raw["success"] not in (True, False, None):
            raise ValueError(f"success {raw['success']!r} is neither true, false nor null")
        self._newest[str(raw["episode"])] = Label(raw["success"], str(raw["source"]))


def _check(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()[:16]
