"""Crash-safe (atomic) file writes; and the rule for names, re-exported."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pirl_contract.names import NAME_PATTERN as NAME_PATTERN
from pirl_contract.names import check_name as check_name

SYNCS = 8
"""files forced to the disk at a time"""
LOCK_S, LOCK_POLL_S = 10.0, 0.01
"""how long a lock is waited for; what holds it writes one small file"""


def utc_now() -> str:
    """Return the wall clock as ISO 8601 in UTC, for people to read; never compared with a deadline."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def sync(path: Path) -> None:
    """Force one file, or the entries of one directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Force many files and entries of directories to the disk, several at a time: a journal commits them together."""
    with ThreadPoolExecutor(SYNCS) as pool:
        for _ in pool.map(sync, paths):
            pass


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where there is none: on the disk when this returns, as their files will be."""
    made = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in reversed(made):
        sync(each.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace the file in one step; one writer at a time per file. When it raises, the old content stays."""
    with replacing(path, value):
        pass


@contextmanager
def replacing(path: Path, value: Any) -> Iterator[None]:
    """Replace the file in one step when the body has ended well; when it raises, the old content stays.

    The new content is on the disk before the body runs, and a rename takes no room: what a full disk rejects, it
    rejects before anything has changed.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))
        sync(staged)
        yield
        os.replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Read what can be sent on as JSON again. Raises ValueError that names the file, FileNotFoundError without one."""
    try:
        value = json.loads(path.read_text())
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # no NaN, no half of a surrogate pair
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' can't be read: {error}") from None
    return value


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line in a single write, on a line of its own also where the last one was cut short.

    Raises OSError when the disk is full: the line may be there in part.
    """
    line = json.dumps(value, sort_keys=True).encode() + b"\n"
    with path.open("a+b", buffering=0) as file:
        if (end := file.seek(0, os.SEEK_END)) and os.pread(file.fileno(), 1, end - 1) != b"\n":
            line = b"\n" + line
        if file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def quarantine(path: Path, folder: Path, reason: str) -> Path:
    """Move a damaged file or folder away, leave the reason beside it (NAME.reason.txt) and return where it is now.

    Raises OSError when the disk rejects the move.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / path.name
    if home.exists():
        home = folder / f"{path.name}-{time.time_ns():x}"
    os.rename(path, home)
    with suppress(OSError):  # a full disk: the log has the reason too
        (folder / f"{home.name}.reason.txt").write_text(f"{utc_now()} moved here from '{path}': {reason}\n")
    return home


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock against other threads and processes; the kernel frees it when a holder dies.

    No other user may open the file, so none can hold it. Raises TimeoutError, which names it, after `LOCK_S`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with suppress(PermissionError):  # of an earlier version, and another user's
            os.fchmod(descriptor, 0o600)
        deadline = time.monotonic() + LOCK_S
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"'{path}' has been locked by another process for {LOCK_S:g} s: end that one")
            time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
