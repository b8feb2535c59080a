"""Writing JSON so that a crash leaves the old text or the new one, and appending lines that never tear each other."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_name(kind: str, name: str) -> str:
    """Return the name when it is safe as a file name, else raise ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{kind} {name!r} must be 1 to 64 letters, digits, '_', '-' or '.', letter or digit first")
    return name


def utc_now() -> str:
    """Return the wall clock as ISO 8601 in UTC, for people to read; never compared."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def write_json(path: Path, value: Any) -> None:
    """Replace the file in one step."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with staged.open("w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
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
