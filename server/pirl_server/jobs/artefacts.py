"""The files that a job left in its folder, and which of them are checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

MOST = 2000
"""files that are listed"""
RESULT = "checkpoint"
_NUMBER = re.compile(r"(\d+)$")
"""of steps, at the end of a folder's name, or of a file's before its suffix"""


@dataclass(frozen=True)
class Artefact:
    """One file."""

    name: str
    """path below the job's folder"""
    bytes: int
    modified: str
    """ISO 8601, UTC"""


@dataclass(frozen=True)
class Checkpoint:
    """A folder of weights."""

    name: str
    """path below the job's folder"""
    kind: Literal["result", "resume"]
    """what was learnt, to serve; or what the job continues from"""
    step: int | None
    """at which it was written, where its name says so"""
    bytes: int
    created: str
    """ISO 8601, UTC: when its newest file was written"""
    files: tuple[Artefact, ...]


def artefacts(directory: Path) -> list[Artefact]:
    """Return the files of a job by name, without hidden ones and links, no more than `MOST`."""
    found = list[Artefact]()
    for each in _walk(directory, ""):
        if len(found) == MOST:
            break
        found.append(each)
    return found


def path_of(directory: Path, name: str) -> Path:
    """Return where an artefact lies. Raises KeyError when there is none of this name."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or part.startswith(".") or "\x00" in part for part in parts):
        raise KeyError(name)
    path = directory
    try:
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise KeyError(name)
        if not path.is_file():
            raise KeyError(name)
    except OSError:  # a name that is too long for the disk
        raise KeyError(name) from None
    return path


def checkpoints(directory: Path) -> list[Checkpoint]:
    """Return the folders of weights, by step; the one to serve comes last."""
    groups: dict[str, list[Artefact]] = {}
    for each in artefacts(directory):
        folder, _, _ = each.name.rpartition("/")
        top = folder.split("/")[0]
        if folder and (top == RESULT or top.startswith(("resume", "checkpoints"))):
            groups.setdefault(folder, []).append(each)
    found = [_checkpoint(folder, tuple(files)) for folder, files in groups.items()]
    return sorted(found, key=lambda each: (each.kind == "result", each.step or 0, each.name))


def _checkpoint(folder: str, files: tuple[Artefact, ...]) -> Checkpoint:
    kind: Literal["result", "resume"] = "result" if folder == RESULT else "resume"
    names = [folder, *(Path(each.name).stem for each in files)] if kind == "resume" else []
    steps = [int(found[1]) for name in names if (found := _NUMBER.search(name))]
    return Checkpoint(
        name=folder,
        kind=kind,
        step=steps[0] if steps else None,
        bytes=sum(each.bytes for each in files),
        created=max(each.modified for each in files),
        files=files,
    )


def _walk(folder: Path, prefix: str) -> Iterator[Artefact]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # removed meanwhile
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            try:
                stat = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            modified = datetime.fromtimestamp(stat.st_mtime, timezone.utc).isoformat(timespec="milliseconds")
            yield Artefact(prefix + entry.name, stat.st_size, modified)
