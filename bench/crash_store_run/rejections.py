"""A disk that is full, fails, or rejects: nothing half is published, and the next attempt works."""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from episodes import Acknowledged, added, another, check

from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore


@contextmanager
def full(rng: random.Random, size: int) -> Iterator[None]:
    """No file may grow beyond a random size, as on a disk that fills up meanwhile: the index's and labels' neither."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (rng.randrange(size), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def failing(rng: random.Random, size: int) -> Iterator[None]:
    """One of the next forced writes fails with EIO."""
    left, sync = rng.randrange(8), os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, os.strerror(5))
        sync(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = sync


KINDS: dict[str, Callable[[random.Random, int], object]] = {"full": full, "failing": failing}


def rejected(folder: Path, episode: Episode, times: int, seed: int = 0) -> dict[str, int]:
    """Publish under such a disk; then look, and publish again."""
    rng, total = random.Random(seed), dict[str, int]()
    for kind, faulty in KINDS.items():
        root, wanted = folder / kind / "episodes", Acknowledged()
        store = EpisodeStore(root)
        size = (root / store.write(another(episode)).path).stat().st_size
        for _ in range(times):
            made = another(episode)
            try:
                with faulty(rng, size):  # type: ignore[attr-defined]
                    store.write(made)
                wanted.episodes.add(made.info.id)
            except OSError:
                added(total, {f"{kind}: rejected": 1})
                wanted.episodes.add(store.write(made).id)
            gone = wanted.episodes - {each.id for each in store.list()}
            added(total, {f"{kind}: episodes not listed by the running server": len(gone)})
        del store
        found = check(root, wanted, episode)
        added(total, {f"{kind}: {name}": count for name, count in found.items() if name != "episodes"})
    return total
