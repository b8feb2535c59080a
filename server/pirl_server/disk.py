"""Writes that a crash leaves whole: the old content or the new one; and the rule for names, re-exported."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pirl_contract.names import NAME_PATTERN as NAME_PATTERN
from pirl_contract.names import check_name as check_name


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


def write_json(path: Path, value: Any) -> None:
    """Replace the file in one step; one writer at a time per file."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))
    sync(staged)
    os.replace(staged, path)


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line in a single write."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(value, sort_keys=True).encode() + b"\n")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock against other threads and processes; the kernel frees it when a holder dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
