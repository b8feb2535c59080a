"""What a process does to files below a folder, in order, with what was forced to the disk: recorded while it does it.

Python's own audit events (PEP 578) say when a file is opened for writing, made, renamed or removed; `os.fsync` is
wrapped, and notes the content that it makes durable. What SQLite does is not seen: its files are copied as they are
at each acknowledgement.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
INDEX = ("index.sqlite", "index.sqlite-wal")
FOLDERS, FILES = "folders", "files"


@dataclass(frozen=True)
class Event:
    """One thing that happened; paths are relative to the journal's folder, '' for itself."""

    kind: str
    """make, open, rename, remove, sync folder, sync file; asked, written, labelled: what a caller was told"""
    path: str
    other: str = ""
    content: bytes = b""
    index: dict[str, bytes] = field(default_factory=dict)


class Journal:
    """Of one folder, by one thread; `sync` may be called by several."""

    def __init__(self, folder: Path, forced: tuple[str, ...] = (FOLDERS, FILES)) -> None:
        """`forced`: what an fsync makes durable; without one of them, the control: a program that forgot it."""
        self.folder, self.events = Path(os.path.realpath(folder)), list[Event]()
        self._forced, self._lock = forced, threading.Lock()

    def told(self, kind: str, words: str) -> None:
        """Note what a caller was told, or asked for."""
        found = {name: path for name in INDEX for path in self.folder.rglob(name)}
        index = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found.values()}
        self._add(Event(kind, words, index=index))

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note an audit event, which comes before what it tells of."""
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike) and arguments[2] & WRITES:
            self._note("open", arguments[0])
        elif event == "os.mkdir":
            self._note("make", arguments[0], arguments[2])
        elif event in ("os.remove", "os.rmdir"):
            self._note("remove", arguments[0], arguments[1])
        elif event == "os.rename":
            source, target = self._inside(arguments[0], arguments[2]), self._inside(arguments[1], arguments[3])
            if source is not None and target is not None:
                self._add(Event("rename", source, target))

    def synced(self, descriptor: int) -> None:
        """Note what an fsync made durable."""
        path = self._inside(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path is None:
            return
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if FOLDERS in self._forced:
                self._add(Event("sync folder", path))
        elif FILES in self._forced:
            self._add(Event("sync file", path, content=Path(f"/proc/self/fd/{descriptor}").read_bytes()))

    def _note(self, kind: str, path: Any, folder: int = -1) -> None:
        if (inside := self._inside(path, folder)) is not None:
            self._add(Event(kind, inside))

    def _add(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def _inside(self, path: Any, folder: int = -1) -> str | None:
        text = os.path.abspath(os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else "", _text(path)))
        text = os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
        if text == str(self.folder):
            return ""
        return text[len(str(self.folder)) + 1 :] if text.startswith(f"{self.folder}/") else None


def _text(path: Any) -> str:
    return os.fsdecode(path)


_listening: list[Journal] = []
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for journal in _listening:
        journal.heard(event, arguments)


@contextmanager
def recording(journal: Journal) -> Iterator[Journal]:
    """Record what the calling process does meanwhile."""
    if not _hooked:
        sys.addaudithook(_hook)  # which can't be taken away again
        _hooked.append(True)
    forced = os.fsync

    def fsync(descriptor: int) -> None:
        forced(descriptor)
        journal.synced(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    _listening.append(journal)
    try:
        yield journal
    finally:
        _listening.remove(journal)
        os.fsync = forced
