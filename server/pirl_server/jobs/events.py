"""A job's events: numbered JSON lines, appended by one process at a time, followed by any number of readers.

While the job's process lives it alone appends; before and after, the supervisor does. A line cut short by a kill has no
line end: readers never see it and the next writer removes it. A line that is no event is passed over by both. Whole
lines never change, so that what was read for one reader serves the others.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

NAME = "events.jsonl"
BLOCK_BYTES = 16 * 1024
"""read and held at once for one follower"""
BLOCKS = 64
"""kept of those that were read last"""
LOGS = 64
"""whose blocks are known by their ends"""


@dataclass(frozen=True)
class Event:
    """One thing that happened; ids rise by one."""

    id: int
    type: str
    """status, progress, metrics or result"""
    time: float
    """seconds since 1970, wall clock, for display"""
    data: Mapping[str, Any]

    @cached_property
    def json(self) -> str:
        """Time and data as one JSON object, made once however many read the event."""
        return json.dumps({"time": self.time, **self.data}, ensure_ascii=False)


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


class EventBlocks:
    """The full blocks that were read last, for all who follow any job, and where each block ends. Any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int], tuple[Sequence[Event], int]] = OrderedDict()
        self._ends: OrderedDict[Path, list[tuple[int, int]]] = OrderedDict()
        """of all that was read from the beginning on: an id, and where the line after it begins"""
        self._lock = threading.Lock()

    def begin(self, path: Path, after: int) -> int:
        """Return where to read on for what comes after this id: past the blocks that are known to end before it."""
        with self._lock:
            ends = self._ends.get(path, [])
            whole = bisect_right(ends, after, key=lambda end: end[0])
            return ends[whole - 1][1] if whole else 0

    def read(self, path: Path, offset: int, after: int) -> tuple[Sequence[Event], int]:
        """Return the events of the block that begins there, and where the next one does: there too at the end.

        A block that ends with an id up to `after` is passed over. Raises FileNotFoundError.
        """
        with self._lock:
            if kept := self._kept.get((path, offset)):
                self._kept.move_to_end((path, offset))
                return kept
        lines, size = _block(path, offset)
        if after and lines and (last := _event(lines[-1])) and last.id <= after:
            self._ended(path, offset, last.id, offset + size)
            return (), offset + size
        found = [event for line in lines if (event := _event(line))], offset + size
        if found[0]:
            self._ended(path, offset, found[0][-1].id, offset + size)
        if BLOCK_BYTES // 2 < size <= 2 * BLOCK_BYTES:  # a larger one is one event
            with self._lock:
                self._kept[path, offset] = found
                if len(self._kept) > BLOCKS:
                    self._kept.popitem(last=False)
        return found

    def _ended(self, path: Path, offset: int, last: int, end: int) -> None:
        """Note where a line ends, and its id; short blocks, as a follower of a growing log reads them, as one."""
        with self._lock:
            ends = self._ends.setdefault(path, [])
            self._ends.move_to_end(path)
            if offset == (ends[-1][1] if ends else 0):
                if ends and end - (ends[-2][1] if len(ends) > 1 else 0) <= BLOCK_BYTES:
                    ends.pop()
                ends.append((last, end))
            if len(self._ends) > LOGS:
                self._ends.popitem(last=False)


class EventTail:
    """Follows the events of one job; each call of `read` gives what is new."""

    def __init__(self, directory: Path, after: int = 0, blocks: EventBlocks | None = None) -> None:
        self._path, self._after = directory / NAME, after
        self._blocks = blocks or EventBlocks()
        self._offset = self._blocks.begin(self._path, after)

    def read(self) -> list[Event]:
        """Return complete events since the last call, without those up to id `after`; empty: there are no more now.

        One call reads a block, more only where that holds no event to return.
        """
        while self._size() != self._offset:
            events, end = self._blocks.read(self._path, self._offset, self._after)
            if end == self._offset:
                break
            self._offset = end
            if found := [event for event in events if event.id > self._after]:
                return found
        return []

    @property
    def at_end(self) -> bool:
        """Whether all that is written now has been read."""
        return self._size() == self._offset

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except FileNotFoundError:
            return self._offset


def _block(path: Path, offset: int) -> tuple[list[bytes], int]:
    """Return the whole lines from there on, about a block of them, or one that is longer as a whole, and their size."""
    with path.open("rb") as file:
        file.seek(offset)
        whole, end, rest = file.read(BLOCK_BYTES).rpartition(b"\n")
        if not end:
            whole, end = rest + file.readline(), b""
            if not whole.endswith(b"\n"):
                return [], 0
    return whole.splitlines(), len(whole) + len(end)


def _event(line: bytes) -> Event | None:
    try:
        event = Event(**json.loads(line))
        json.dumps(event.data, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        return None
    known = type(event.id) is int and isinstance(event.type, str) and isinstance(event.time, int | float)
    return event if known and isinstance(event.data, dict) and "\n" not in event.type else None
