"""One server per root: a second one would delete the first one's staging and end its job.

Jobs and commands that read or add below the root do not take part.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = ".server.lock"


@contextmanager
def root_lock(root: Path) -> Iterator[None]:
    """Hold the root until the context ends; the kernel frees it when the process dies, its children never have it.

    Raises ValueError that names the holder when another server has it, or when the root can't be written to.
    """
    path = root / NAME
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ValueError(f"root '{root}' can't be used: {error}; give a writable folder with --root") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"root '{root}' is in use by the server with process id {_holder(descriptor)}: stop it, or give"
                " this one another folder with --root"
            ) from None
        with suppress(OSError):  # a full disk: the lock holds without the number too
            os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 21, 0).decode(errors="replace").strip()
    return text if text.isdigit() else "unknown"
