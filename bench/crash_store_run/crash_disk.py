"""A disk that rejects: every call in turn fails with EIO or ENOSPC, files may not grow, a folder is read-only."""

from __future__ import annotations

import errno
import io
import os
import random
import resource
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from crash_episodes import Promised, again, fingerprint, looked_at, made

from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore

NOBODY = 65534


@dataclass
class Rejections:
    """Of one kind of fault."""

    tries: int = 0
    refused: int = 0
    """`write` or `label` raised OSError with words"""
    silent: int = 0
    """it returned although a call had failed: only what a later list would find again"""
    words: str = ""
    """one of them"""
    faults: list[str] = field(default_factory=list)
    skipped: str = ""


class Failing:
    """Lets the call of this number fail: mkdir, rename, fsync, and every write to a file."""

    def __init__(self, number: int, code: int) -> None:
        self.left, self.code, self.failed = number, code, False

    def check(self) -> None:
        """Count one call. Raises OSError when it is the one."""
        self.left -= 1
        if self.left == 0:
            self.failed = True
            raise OSError(self.code, os.strerror(self.code))

    def wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""

        def counted(*arguments: Any, **named: Any) -> Any:
            self.check()
            return call(*arguments, **named)

        return counted

    def open(self, path: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        """Open with writes that are counted."""
        if "b" not in mode or not set(mode) & set("wax"):
            return _open(path, mode, buffering, *more, **named)
        raw = _Raw(path, mode.replace("b", ""))
        raw.failing = self
        return raw if buffering == 0 else io.BufferedWriter(raw)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let it happen to this process."""
        with ExitStack() as patches:
            for name in ("fsync", "rename", "mkdir"):
                patches.enter_context(patch.object(os, name, self.wrapped(getattr(os, name))))
            patches.enter_context(patch.object(io, "open", self.open))
            yield


_open = io.open


class _Raw(io.FileIO):
    failing: Failing

    def write(self, data: Any) -> int:
        self.failing.check()
        return super().write(data)


def failing_calls(folder: Path, code: int, numbers: Iterable[int]) -> Rejections:
    """Let the calls of these numbers fail, one in each attempt to write and label an episode, until there is none."""
    found = Rejections()
    for number in numbers:
        failing = Failing(number, code)
        _attempt(folder / str(number), found, failing.applied)
        if not failing.failed:
            found.tries -= 1
            found.silent -= 1
            break
    return found


def small_files(folder: Path, tries: int) -> Rejections:
    """Let no file grow beyond a random size (RLIMIT_FSIZE)."""
    found, rng = Rejections(), random.Random(0)
    size = _size(folder / "size")

    for number in range(tries):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        most = rng.randrange(1, size)

        @contextmanager
        def limited(most: int = most, soft: int = soft, hard: int = hard) -> Iterator[None]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        _attempt(folder / str(number), found, limited)
    return found


def full_disk(folder: Path, tries: int) -> Rejections:
    """Fill a tmpfs of 4 MiB up to a random rest."""
    found, rng, disk = Rejections(), random.Random(0), folder / "tmpfs"
    size = _size(folder / "size")
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        found.skipped = "no tmpfs may be mounted here"
        return found
    try:
        for number in range(tries):
            ballast, rest = disk / "ballast", rng.randrange(size)

            @contextmanager
            def filled(ballast: Path = ballast, rest: int = rest) -> Iterator[None]:
                _fill(ballast, rest)
                try:
                    yield
                finally:
                    ballast.unlink()

            _attempt(disk / str(number), found, filled)
            subprocess.run(["rm", "-r", str(disk / str(number))], check=True)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)  # a store may still hold its index
    return found


def read_only(folder: Path) -> Rejections:
    """Take the right to write from each folder of the store in turn; root has it anyway, and tries as another user."""
    found = Rejections()
    for name in ("staging", "episodes/arm-1"):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            _as_nobody(folder / name.replace("/", "-"), name, write)
        os.close(write)
        with os.fdopen(read) as said:
            refused, words, faults = [*said.read().split("\0"), "", "", "it ended early"][:3]
        os.waitpid(child, 0)
        found.tries += 1
        found.refused += refused == "1"
        found.words = words or found.words
        found.faults += [faults] if faults else []
    return found


def _as_nobody(folder: Path, name: str, write: int) -> None:
    said = "0\0\0it did not run"
    try:
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        found = Rejections()

        @contextmanager
        def closed() -> Iterator[None]:
            (folder / "episodes" / name).chmod(0o555)
            try:
                yield
            finally:
                (folder / "episodes" / name).chmod(0o755)

        _attempt(folder, found, closed)
        said = f"{found.refused}\0{found.words}\0{'; '.join(found.faults)}"
    except BaseException as error:
        said = f"0\0\0{error!r}"
    finally:
        os.write(write, said.encode())
        os._exit(0)


def _attempt(folder: Path, found: Rejections, fault: Callable[[], Any]) -> None:
    """Write and label an episode under a fault, look at what is visible, and do it again without."""
    root = folder / "episodes"
    store, first, second = EpisodeStore(root), made(12, 3), made(12, 3)
    store.write(first)
    promised = Promised(fingerprint(first), {first.info.id})
    refusal: OSError | None = None
    with fault():
        try:
            _done(store, second)
        except OSError as error:
            refusal = error
    found.tries += 1
    found.refused += refusal is not None
    found.silent += refusal is None
    found.faults += [] if refusal is None or refusal.strerror else [f"an error without words: {refusal!r}"]
    found.words = str(refusal or found.words)
    promised.asked[second.info.id] = True
    if refusal is None:
        promised.episodes.add(second.info.id)
        promised.labels = dict(promised.asked)
    found.faults += looked_at(root, promised).faults
    _done(store, second)
    promised.episodes.add(second.info.id)
    promised.labels = dict(promised.asked)
    found.faults += looked_at(root, promised).faults


def _done(store: EpisodeStore, episode: Episode) -> None:
    store.write(episode)
    store.label(episode.info.id, True, "operator")


def _size(folder: Path) -> int:
    store = EpisodeStore(folder)
    return (folder / store.write(again(made(12, 3))).path).stat().st_size


def _fill(path: Path, rest: int) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for size in (2**18, 4096):
            with suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    os.truncate(path, max(0, path.stat().st_size - rest))


CODES = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
