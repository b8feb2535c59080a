"""kill -9 at random moments among writers of one store: processes that are forked, killed, and started again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from crash_episodes import Promised, again, fingerprint, looked_at, made

from pirl_server.episodes import manifest
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore

WRITERS = 10
KILLS_A_ROUND = 50
"""then all are dead, and a fresh process looks at what they left"""


@dataclass
class Tally:
    """Of the rounds with episodes of one size."""

    mib: float = 0.0
    kills: int = 0
    acknowledged: int = 0
    labels: int = 0
    visible: int = 0
    caught: Counter[str] = field(default_factory=Counter)
    """what killed writers had left in staging, by how far they were"""
    swept: int = 0
    recovery_s: float = 0.0
    """the longest: a store, its sweep, its first list"""
    faults: list[str] = field(default_factory=list)
    lost: int = 0
    corrupt: int = 0


class Writers:
    """Processes that write until they are killed; each says what was acknowledged in a pipe."""

    def __init__(self, root: Path, episode: Episode, early: bool) -> None:
        self._root, self._episode, self._early = root, episode, early
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self._rest = b""
        self.pids: list[int] = []
        self.promised, self.errors = Promised(fingerprint(episode)), list[str]()

    def start(self) -> None:
        """Start one."""
        pid = os.fork()
        if not pid:
            self._write_on()
        self.pids.append(pid)

    def kill(self, index: int) -> None:
        """Kill one, wherever it is."""
        pid = self.pids.pop(index)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def close(self) -> None:
        """Kill those that live, and read what was said."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            os.waitpid(pid, 0)
        self.pids.clear()
        self.listen()
        os.close(self._read)
        os.close(self._write)

    def listen(self) -> None:
        """Take in what was said."""
        with suppress(BlockingIOError):
            while said := os.read(self._read, 1 << 16):
                self._rest += said
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            kind, _, said_of = line.decode().partition(" ")
            if kind == "error":
                self.errors.append(said_of)
            elif kind == "written":
                self.promised.episodes.add(said_of)
            else:
                (self.promised.asked if kind == "asked" else self.promised.labels)[said_of[2:]] = said_of[0] == "1"

    def _write_on(self) -> NoReturn:
        try:
            store, rng = EpisodeStore(self._root), random.Random(os.getpid())
            while True:
                episode, label = again(self._episode), rng.random() < 0.5
                if self._early:
                    self._say(f"written {episode.info.id}")
                store.write(episode)
                if not self._early:
                    self._say(f"written {episode.info.id}")
                if rng.random() < 0.5:
                    self._say(f"asked {label:d} {episode.info.id}")
                    store.label(episode.info.id, label, "operator")
                    self._say(f"labelled {label:d} {episode.info.id}")
        except BaseException as error:
            self._say(f"error {error!r}"[:2000].replace("\n", " "))
        finally:
            os._exit(1)

    def _say(self, line: str) -> None:
        os.write(self._write, line.encode() + b"\n")  # short enough to be whole or not there at all


def kills(folder: Path, pixels: int, calls: int, count: int, early: bool = False, seed: int = 0) -> Tally:
    """Kill that many. `early`: the control, writers that acknowledge before they write."""
    episode, rng, tally = made(pixels, calls), random.Random(seed), Tally()
    alone_s, tally.mib = _alone(folder, episode)
    while tally.kills < count:
        root = folder / f"round-{tally.kills}" / "episodes"
        _round(root, episode, tally, min(KILLS_A_ROUND, count - tally.kills), alone_s, rng, early)
        shutil.rmtree(root.parent)
    return tally


def _alone(folder: Path, episode: Episode) -> tuple[float, float]:
    """Seconds that a write takes by itself, and its MiB."""
    store = EpisodeStore(folder / "alone" / "episodes")
    began = time.perf_counter()
    for _ in range(2):
        path = store.root / store.write(again(episode)).path
    seconds, size = (time.perf_counter() - began) / 2, path.stat().st_size / 2**20
    shutil.rmtree(folder / "alone")
    return seconds, size


def _round(
    root: Path, episode: Episode, tally: Tally, count: int, pause_s: float, rng: random.Random, early: bool
) -> None:
    EpisodeStore(root)
    writers = Writers(root, episode, early)
    last = min(WRITERS, count)
    for _ in range(WRITERS):
        writers.start()
    for _ in range(count - last):
        time.sleep(rng.uniform(0, pause_s))
        writers.kill(rng.randrange(WRITERS))
        writers.start()
        writers.listen()
    time.sleep(rng.uniform(0, WRITERS * pause_s))
    writers.close()
    tally.kills += count
    tally.caught += Counter(_how_far(each) for each in (root / "staging").iterdir())
    _look(root, writers, tally)


def _look(root: Path, writers: Writers, tally: Tally) -> None:
    promised = writers.promised
    left, began = list((root / "staging").iterdir()), time.perf_counter()
    store = EpisodeStore(root)
    store.sweep()
    store.list()
    tally.recovery_s = max(tally.recovery_s, time.perf_counter() - began)
    tally.swept += len(left) - len(list((root / "staging").iterdir()))
    found = looked_at(root, promised)
    tally.acknowledged += len(promised.episodes)
    tally.labels += len(promised.labels)
    tally.visible += found.listed
    tally.lost += len(found.lost) + len(found.labels_lost)
    tally.corrupt += len(found.corrupt) + len(found.unnamed)
    tally.faults += found.faults + writers.errors
    tally.caught["published, not acknowledged"] += found.listed - len(promised.episodes - set(found.lost))


def _how_far(staged: Path) -> str:
    names: Sequence[str] = [each.name for each in staged.iterdir()]
    if not names:
        return "empty folder"
    return "with a manifest" if manifest.NAME in names else "part of the arrays"
