"""Labels given after an episode was published: one JSON line each, the newest of an episode counts.

The episode itself stays as it was sealed; readers of the store get the newest label. A label is undone by a line of its
own, which says what counts then, so nothing is ever removed. Each line has a check of its content, but for those of
earlier versions. One that can't be read is no label, and is named: a crash cut it off, or it was changed. The next one
begins on a line of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pirl_server.atomic_files import append_line, locked, sync

_FIELDS = {"episode", "success", "source", "note", "at"}
_LATER = {"author": "", "undo": False}
"""fields that lines of earlier versions lack"""
BLOCK = 1 << 20
Result = TypeVar("Result")


@dataclass(frozen=True)
class Label:
    """A label of an episode; `success` None retracts the one before."""

    success: bool | None
    source: str
    """operator, sim or classifier; empty when it is taken back"""
    note: str = ""
    author: str = ""
    """who gave it; empty: not known"""
    at: str = ""
    """ISO 8601, UTC"""
    undo: bool = False
    """takes the label before it back: `success` and `source` are those that count again"""


@dataclass(frozen=True)
class Line:
    """One line of the log; `label` None: it can't be read, and `fault` says why."""

    number: int
    episode: str
    label: Label | None
    fault: str = ""


class LabelLog:
    """The file of one store. Any number of threads and processes may read and write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, make: Callable[[], tuple[str, Label]]) -> Label:
        """Add the label of an episode that `make` returns: on the disk when this returns.

        No other line comes between what `make` reads and its own. Raises OSError, and what `make` raises.
        """
        with locked(self.path.with_suffix(".lock")):
            episode_id, label = make()
            line = {"episode": episode_id, **asdict(label)}
            append_line(self.path, line | {"check": _check(line)})
            sync(self.path)
            sync(self.path.parent)
        return label

    def stamp(self) -> tuple[int, int, int]:
        """Return what changes with the file: bytes, time of change in ns, inode; zeros without one."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return 0, 0, 0
        return stat.st_size, stat.st_mtime_ns, stat.st_ino

    def digest(self, size: int) -> Any:
        """Return the SHA-256 of the first bytes, so many, as a `hashlib` object; of fewer where the file is shorter."""
        found = hashlib.sha256()
        if size:
            with self.path.open("rb") as file:
                while size and (block := file.read(min(size, BLOCK))):
                    found.update(block)
                    size -= len(block)
        return found

    def whole_lines(self, start: int) -> bytes:
        """Return what stands behind `start` up to the end of the last whole line."""
        if self.stamp()[0] <= start:
            return b""
        with self.path.open("rb") as file:
            file.seek(start)
            whole, end, _ = file.read().rpartition(b"\n")
        return whole + end

    def parse(self, raw: bytes, before: int) -> Iterator[Line]:
        """Read whole lines, of which so many stand before; empty ones count, and are left out."""
        for number, line in enumerate(raw.split(b"\n")[:-1], before + 1):
            if not line:
                continue
            try:
                episode, label = _parsed(line)
                yield Line(number, episode, label)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                why = f"'{self.path}', line {number} can't be read and counts for nothing: {error}"
                yield Line(number, "", None, why)

    def history(self, episode_id: str) -> list[Label]:
        """Return the labels of an episode that can be read, oldest first."""
        needle = episode_id.encode()
        lines = (line for line in self.whole_lines(0).split(b"\n") if needle in line)
        found = self.parse(b"".join(line + b"\n" for line in lines), 0)
        return [each.label for each in found if each.label is not None and each.episode == episode_id]


def before_last(history: list[Label], published: Label) -> Label:
    """Return the label that counts again when the newest one that was not undone is taken back.

    `published` is that of the sealed episode. Raises ValueError when there is none to take back.
    """
    standing = [published]
    for each in history:
        if each.undo and len(standing) > 1:
            standing.pop()
        elif not each.undo:
            standing.append(each)
    if len(standing) == 1:
        raise ValueError("it has the label that it was published with: there is none to undo")
    return replace(standing[-2], note="", author="", at="", undo=True)


def _parsed(line: bytes) -> tuple[str, Label]:
    raw: dict[str, Any] = json.loads(line)
    check = raw.pop("check", None)
    if check is not None and check != _check(raw):
        raise ValueError("it was changed after it was written")
    if raw.keys() - _LATER.keys() != _FIELDS:
        raise ValueError("it was changed after it was written")
    raw = _LATER | raw
    if not (raw["success"] is None or isinstance(raw["success"], bool)):
        raise ValueError(f"success {raw['success']!r} is neither true, false nor null")
    texts = {name: str(raw[name]) for name in ("source", "note", "author", "at")}
    return str(raw["episode"]), Label(raw["success"], **texts, undo=raw["undo"] is True)


def _check(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()[:16]
