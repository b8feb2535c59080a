"""A job's output, in two files of bounded size, and reading it by position in all that was written.

JOB/log.txt     the newest output
   /log.1.txt   what was before it, of as many bytes at most
   /log.json    where both begin, counted from the first byte of the job; absent until the first move
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pirl_server.atomic_files import locked, read_json, write_json

NAME, EARLIER, BEGINS, LOCK = "log.txt", "log.1.txt", "log.json", ".log.lock"
MAX_LOG_BYTES = 16 * 2**20
"""of each of the two files that a job's output is kept in"""
CATCH_UPS = 10
"""at most, with what is written while a full log is moved"""


@dataclass(frozen=True)
class LogPart:
    """Some of a job's output. Positions are bytes, from the first one that the job wrote."""

    offset: int
    """of the first byte of `data`"""
    data: bytes
    first: int
    """first byte that is still kept"""
    size: int
    """bytes that were written so far"""


def bound(log: Path) -> None:
    """Move what a full log has into its second file, in place of what is there; its writers have it open to append."""
    with suppress(OSError):
        if log.stat().st_size <= MAX_LOG_BYTES:
            return
        with locked(log.with_name(LOCK)):
            _move(log)


def read(directory: Path, offset: int, limit: int) -> LogPart:
    """Return up to `limit` bytes from there on; from the first kept one where those before are gone.

    A negative offset counts from the end. Raises OSError.
    """
    with locked(directory / LOCK):
        earlier, begin = _begins(directory)
        pieces = [(earlier, directory / EARLIER), (begin, directory / NAME)]
        kept = [(start, _size(path), path) for start, path in pieces if _size(path)]
        size = begin + _size(directory / NAME)
        first = kept[0][0] if kept else size
        at = max(first, offset if offset >= 0 else size + offset)
        for start, length, path in kept:
            if at < start + length:
                at = max(at, start)
                with path.open("rb") as file:
                    file.seek(at - start)
                    return LogPart(at, file.read(limit), first, size)
    return LogPart(at, b"", first, size)


def _move(log: Path) -> None:
    directory = log.parent
    earlier, begin = _begins(directory)
    size, staged, moved = log.stat().st_size, directory / f".{EARLIER}", False
    try:
        shutil.copyfile(log, staged)
        size = staged.stat().st_size
        os.replace(staged, directory / EARLIER)
        earlier, moved = begin, True
    except OSError:  # a full disk: what the log has is lost
        staged.unlink(missing_ok=True)
    with suppress(OSError):
        write_json(directory / BEGINS, {"earlier": earlier, "begin": begin + size})
        for _ in range(CATCH_UPS if moved else 0):
            # Its writers have not waited.
            with log.open("rb") as file, (directory / EARLIER).open("ab") as kept:
                file.seek(size)
                if not (more := file.read()):
                    break
                kept.write(more)
            size += len(more)
            write_json(directory / BEGINS, {"earlier": earlier, "begin": begin + size})
    os.truncate(log, 0)


def _begins(directory: Path) -> tuple[int, int]:
    """Return where the earlier file and the newest one begin. Of a job of an older version: as if nothing was lost."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = read_json(directory / BEGINS)
        return int(found["earlier"]), int(found["begin"])
    return 0, _size(directory / EARLIER)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
