"""Which episodes running jobs read, so that none is removed under them.

Each reader has a file of its own below the store, which it locks: the kernel frees the lock when the reader dies. Its
content names the episodes; before they are chosen it is empty, and nothing may be removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pirl_server.atomic_files import locked


class Lease:
    """What one reader reads. It ends with `release`, with this object, or with the process."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.release = weakref.finalize(self, _end, self._descriptor, path)

    def set(self, ids: Iterable[str]) -> None:
        """Name the episodes: the others may be removed."""
        os.pwrite(self._descriptor, json.dumps(sorted(ids)).encode(), 0)


class Leases:
    """Of one store; any number of processes."""

    def __init__(self, root: Path) -> None:
        self._folder, self.lock = root / "readers", root / ".removing.lock"

    def take(self) -> Lease:
        """Begin to read: until `Lease.set` names them, no episode is removed. Waits while some are being removed."""
        self._folder.mkdir(exist_ok=True)
        with locked(self.lock):
            return Lease(self._folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.json")

    def read(self) -> set[str] | None:
        """Return the ids that are read, None while a reader has not chosen yet. Forgets readers that have died.

        No reader comes while the caller holds `lock`.
        """
        found = set[str]()
        for path in self._folder.glob("*.json") if self._folder.is_dir() else ():
            ids = _ids(path)
            if ids is None:
                return None
            found |= ids
        return found


def _ids(path: Path) -> set[str] | None:
    """Return what a reader has named: nothing when it has died, None when that is not known."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return set()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return set(map(str, json.loads(path.read_bytes())))
        except (ValueError, OSError):
            return None
    else:
        path.unlink(missing_ok=True)
        return set()
    finally:
        os.close(descriptor)


def _end(descriptor: int, path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
    os.close(descriptor)
