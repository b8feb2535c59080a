"""The summary of one published episode, and reading it from its manifest, or many of them in a process of their own.

    python -m pirl_server.episodes.summary

reads JSON texts from stdin, one a line, each the path of an episode's directory, and answers each with one line. A
manifest takes some 0.3 ms to read and check: in the server's own process thousands of them would delay its robots.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from pirl_server.episodes import manifest
from pirl_server.episodes.manifest import DamagedError, UnreadableError

GROUP, EARLIER_GROUP = "episode.zarr.zip", "episode.zarr"
FEW = 64
"""episodes that are read in the calling process: starting another one takes as long"""
FEW_FILES = 4
"""of an episode, whose sizes are kept beside its summary"""


@dataclass(frozen=True)
class EpisodeSummary:
    """What a list of episodes shows; kept in the manifest, so that listing opens no array."""

    id: str
    robot_id: str
    created: str
    instruction: str
    success: bool | None
    label_source: str
    end_reason: str
    sampler: str
    contract_hash: str
    policy_versions: tuple[str, ...]
    calls: int
    steps: int
    path: str
    """of the Zarr group, relative to the store"""
    dry_run: bool = False
    """nothing reached an arm; no learner reads it"""
    targets: int | None = None
    """steps that may be learnt; None: written before they were counted"""
    human_steps: int | None = None
    """of these, those that a human drove"""


@dataclass(frozen=True)
class EpisodeRecord:
    """What a manifest says of an episode, and how to see without reading it that it still does."""

    summary: EpisodeSummary
    digest: str
    """SHA-256 of the manifest, which names that of every file; of one that was migrated that of the one before"""
    size: int
    """bytes of all files, the manifest included"""
    stamp: tuple[int, int, int]
    """of the manifest before it was read: times of change of content and of entry in ns, bytes"""
    files: tuple[tuple[str, int], ...]
    """the other files and their bytes; none of them where there are more than a few"""


_SUMMARY = TypeAdapter(EpisodeSummary)
_FIELDS = frozenset(EpisodeSummary.__dataclass_fields__)
Found: TypeAlias = "EpisodeRecord | DamagedError | UnreadableError | OSError"


def read_summary(home: Path) -> EpisodeSummary:
    """Read the summary of the episode in `home`, a robot's folder below the store.

    Raises as `manifest.read`; DamagedError too for a summary that is none, or of another episode.
    """
    return _summary_of(home, manifest.read(home))


def read_record(home: Path) -> EpisodeRecord:
    """Read the summary with what the index keeps beside it. Raises UnreadableError, and as `read_summary`."""
    path = home / manifest.NAME
    try:
        stamp = stamp_of(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableError(f"'{path}' is missing: incomplete, or not an episode") from None
    found = manifest.read(home)
    sizes = tuple((name, entry[0]) for name, entry in sorted(found.files.items()))
    return EpisodeRecord(
        summary=_summary_of(home, found),
        digest=found.digest,
        size=stamp[2] + sum(size for _, size in sizes),
        stamp=stamp,
        files=sizes if len(sizes) <= FEW_FILES else (),
    )


def stamp_of(stat: os.stat_result) -> tuple[int, int, int]:
    """Return what changes whenever the file does, but for a change within the same tick of the clock."""
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size


def read_records(homes: Sequence[Path]) -> list[Found]:
    """Read the record of each, or the error; of many in another process."""
    if len(homes) > FEW:
        command = [sys.executable, "-m", __name__]
        lines_in = "".join(f"{json.dumps(str(home))}\n" for home in homes)
        done = subprocess.run(command, input=lines_in, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        if done.returncode == 0 and len(lines) == len(homes):
            return [_decoded(line) for line in lines]
    return [_read(home) for home in homes]


def _summary_of(home: Path, found: manifest.Manifest) -> EpisodeSummary:
    error: type[DamagedError | UnreadableError] = UnreadableError if found.checked else DamagedError
    path = home / manifest.NAME
    if not found.checked and (unknown := found.summary.keys() - _FIELDS):
        raise error(f"'{path}' can't be read: unknown '{min(unknown)}' in the summary")
    known = {name: value for name, value in found.summary.items() if name in _FIELDS}
    try:
        summary = _SUMMARY.validate_json(json.dumps(known), strict=True)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise error(f"'{path}' can't be read: {where}: {first['msg']}") from None
    robot = home.parent
    beside = f"{robot.parent.name}/{robot.name}/{home.name}/"
    paths = {beside + name for name in (GROUP, EARLIER_GROUP)}
    if (summary.id, summary.robot_id) != (home.name, robot.name) or summary.path not in paths:
        raise error(f"'{path}' can't be read: it is of '{summary.path}'")
    return summary


def _read(home: Path) -> Found:
    try:
        return read_record(home)
    except (DamagedError, UnreadableError, OSError) as error:
        return error


def _encoded(found: Found) -> str:
    if isinstance(found, EpisodeRecord):
        return json.dumps(asdict(found))
    return json.dumps([type(found).__name__, str(found)])


def _decoded(line: str) -> Found:
    found = json.loads(line)
    if isinstance(found, dict):
        return _record(found)
    kinds = {kind.__name__: kind for kind in (DamagedError, UnreadableError)}
    return kinds.get(found[0], OSError)(found[1])


def _record(found: dict[str, Any]) -> EpisodeRecord:
    said = found["summary"]
    summary = EpisodeSummary(**(said | {"policy_versions": tuple(said["policy_versions"])}))
    files = tuple((str(name), int(size)) for name, size in found["files"])
    mtime_ns, ctime_ns, size = found["stamp"]
    return EpisodeRecord(summary, found["digest"], found["size"], (mtime_ns, ctime_ns, size), files)


def main() -> None:
    """Answer all lines of stdin, behind everything else that the machine has to do."""
    os.nice(10)
    for line in sys.stdin:
        print(_encoded(_read(Path(json.loads(line)))))


if __name__ == "__main__":
    main()
