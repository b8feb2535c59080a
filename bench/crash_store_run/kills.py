"""Writers that are killed at random points, ten at a time."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from episodes import Acknowledged, added, another, check

from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore

WRITERS = 10


def killed(folder: Path, episode: Episode, rounds: int, longest_s: float, seed: int = 0) -> dict[str, int]:
    """Start ten writers on one store, kill them all at a random moment, look; again and again on the same store."""
    rng, total, root = random.Random(seed), dict[str, int](), folder / "kills" / "episodes"
    EpisodeStore(root)
    wanted = Acknowledged()
    for _ in range(rounds):
        pipes = [_writer(root, episode, f"arm-{number}") for number in range(WRITERS)]
        time.sleep(rng.uniform(0.0, longest_s))
        for pid, _ in pipes:
            os.kill(pid, signal.SIGKILL)
        for pid, pipe in pipes:
            os.waitpid(pid, 0)
            with os.fdopen(pipe) as lines:
                for line in lines:
                    _take(wanted, line)
        left = sum(1 for _ in (root / "staging").iterdir())
        added(total, check(root, wanted, episode) | {"kills": WRITERS, "kills within a write": left})
        if total["episodes"] > 200:  # a full disk is another test
            shutil.rmtree(root)
            wanted = Acknowledged()
            EpisodeStore(root)
            total["episodes"] = 0
        total["acknowledged"] = total.get("acknowledged", 0) + len(wanted.episodes)
    del total["episodes"]
    return total


def _take(wanted: Acknowledged, line: str) -> None:
    if not line.endswith("\n"):
        return
    kind, episode_id = line.split()
    if kind == "episode":
        wanted.episodes.add(episode_id)
    else:
        wanted.labels[episode_id] = kind == "success"


def _writer(root: Path, episode: Episode, robot_id: str) -> tuple[int, int]:
    """Fork one: it writes, labels and says so, until it is killed. Returns its process id and what it says."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, reading
    os.close(reading)
    try:
        store = EpisodeStore(root)
        while True:
            said = store.write(another(episode, robot_id))
            os.write(writing, f"episode {said.id}\n".encode())
            for success in (False, True):
                store.label(said.id, success, "operator")
                os.write(writing, f"{'success' if success else 'failure'} {said.id}\n".encode())
    finally:
        os._exit(1)
