"""One server per root, and one user: a second server would delete the first one's staging and end its job.

Jobs and commands that read or add below the root do not take part.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pirl_server.atomic_files import make_folder

NAME = ".server.lock"
OTHERS = 0o077
"""the bits of a mode that are of other users"""
_LOG = logging.getLogger(__name__)


@contextmanager
def root_lock(root: Path) -> Iterator[None]:
    """Hold the root until the context ends; the kernel frees it when the process dies, its children never have it.

    Raises ValueError that names the holder when another server has it, or when the root can't be written to.
    """
    path = root / NAME
    try:
        make_folder(root)
        close_to_others(root)
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


@contextmanager
def private_files() -> Iterator[None]:
    """Make every file and folder of this process, and of those that it starts, closed to other users."""
    before = os.umask(OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def close_to_others(root: Path) -> None:
    """Close the folder to other users, whatever the modes of an earlier version below it; not that of another user."""
    mode = stat.S_IMODE(root.stat().st_mode)
    if not mode & OTHERS:
        return
    try:
        root.chmod(mode & ~OTHERS)
    except OSError as error:
        _LOG.warning("root '%s' is open to other users (mode %03o): %s", root, mode, error.strerror)


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 21, 0).decode(errors="replace").strip()
    return text if text.isdigit() else "unknown"
