"""A job's events: numbered JSON lines, appended by one process at a time, followed by any number of readers.

While the job's process lives it alone appends; before and after, the supervisor does. A line cut short by a kill has no
line end: readers never see it and the next writer removes it. A line that is no event is passed over by both.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "events.jsonl"
BLOCK_BYTES = 16 * 1024
"""read and held at once for one follower"""


@dataclass(frozen=True)
class Event:
    """One thing that happened; ids rise by one."""

    id: int
    type: str
    """status, progress, metrics or result"""
    time: float
    """seconds since 1970, wall clock, for display"""
    data: Mapping[str, Any]


class EventLog:
    """Appends to the events of the job in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._path.touch()
        whole = self._path.read_bytes().rpartition(b"\n")[0]
        os.truncate(self._path, len(whole) + 1 if whole else 0)
        self._last = next((event.id for line in reversed(whole.splitlines()) if (event := _event(line))), 0)

    def append(self, kind: str, data: Mapping[str, Any]) -> None:
        """Append one event; it is visible to readers when this returns.

        Raises OSError when the disk is full; what was written in part is taken back.
        """
        self._last += 1
        line = json.dumps({"id": self._last, "type": kind, "time": time.time(), "data": dict(data)}).encode() + b"\n"
        with self._path.open("ab", buffering=0) as file:
            if (written := file.write(line)) < len(line):
                os.ftruncate(file.fileno(), file.tell() - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))


class EventTail:
    """Follows the events of one job; each call of `read` gives what is new."""

    def __init__(self, directory: Path, after: int = 0) -> None:
        self._path, self._after, self._offset = directory / NAME, after, 0

    def read(self) -> list[Event]:
        """Return complete events since the last call, without those up to id `after`; empty: there are no more now.

        One call reads a block, more only where that holds no event to return.
        """
        while lines := self._lines():
            events = [event for line in lines if (event := _event(line)) and event.id > self._after]
            if events:
                return events
        return []

    def _lines(self) -> list[bytes]:
        """Return the next whole lines, about a block of them, and one that is longer as a whole."""
        try:
            if os.stat(self._path).st_size == self._offset:
                return []
        except FileNotFoundError:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, end, rest = file.read(BLOCK_BYTES).rpartition(b"\n")
            if not end:
                whole, end = rest + file.readline(), b""
                if not whole.endswith(b"\n"):
                    return []
        self._offset += len(whole) + len(end)
        return whole.splitlines()


def _event(line: bytes) -> Event | None:
    try:
        event = Event(**json.loads(line))
        json.dumps(event.data, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        return None
    known = type(event.id) is int and isinstance(event.type, str) and isinstance(event.time, int | float)
    return event if known and isinstance(event.data, dict) and "\n" not in event.type else None
