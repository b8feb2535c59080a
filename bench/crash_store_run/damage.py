"""Flipped bits and cut files of every kind: found, or without any effect, and the rest is read as before."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from episodes import another

from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes import index, manifest
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore

KINDS = ("arrays", "manifest", "labels", "index", "dataset")
OLD = (1_700_000_000, 1_700_000_000)


def damaged(folder: Path, episode: Episode, times: int, seed: int = 0) -> dict[str, int]:
    """Damage one file of a store of four episodes, so many times, and look at the store."""
    rng, root = random.Random(seed), folder / "damage" / "episodes"
    files, truth = _store(root, episode)
    total = {f"{kind}: {what}": 0 for kind in KINDS for what in ("damaged", "found", "without effect", "missed")}
    total["undamaged episodes not read"] = 0
    for number in range(times):
        kind = KINDS[number % len(KINDS)]
        with _changed(files[kind], root, rng):
            found, same, unread = _look(root, kind, files, truth)
        total[f"{kind}: damaged"] += 1
        total[f"{kind}: {'found' if found else 'without effect' if same else 'missed'}"] += 1
        total["undamaged episodes not read"] += unread
    return total


def _store(root: Path, episode: Episode) -> tuple[dict[str, Path], dict[str, object]]:
    store = EpisodeStore(root)
    said = [store.write(another(episode)) for _ in range(4)]
    for each in said:
        store.label(each.id, True, "operator", "it did")
    store.datasets.create("all", list(store.select(EpisodeSelection())), EpisodeSelection())
    home = (root / said[0].path).parent
    truth: dict[str, object] = {each.id: each for each in store.list()}
    del store
    files = {
        "arrays": root / said[0].path, "manifest": home / manifest.NAME, "labels": root / "labels.jsonl",
        "index": root / index.NAME, "dataset": root / "datasets" / "all.json",
    }  # fmt: skip
    return files, truth


@contextmanager
def _changed(path: Path, root: Path, rng: random.Random) -> Iterator[None]:
    """Flip a bit, or cut it short; everything is as before at the end."""
    raw = path.read_bytes()
    if rng.random() < 0.7:
        data = bytearray(raw)
        data[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    else:
        path.write_bytes(raw[: rng.randrange(len(raw))])
    for home in (root / "episodes").glob("*/*"):
        os.utime(home / manifest.NAME, OLD)  # not a copy on its way
    try:
        yield
    finally:
        away = root.parent / "quarantine" / "episodes"
        for moved in away.glob("?" * 32) if away.is_dir() else ():
            moved.rename(root / "episodes" / "arm-1" / moved.name)
        if path.name == index.NAME:
            for name in ("-wal", "-shm"):
                path.with_name(path.name + name).unlink(missing_ok=True)
        path.write_bytes(raw)


def _look(root: Path, kind: str, files: dict[str, Path], truth: dict[str, object]) -> tuple[bool, bool, int]:
    """Return whether something was found to be wrong, whether all is as it was, how many others can't be read."""
    store, faults = EpisodeStore(root), list[str]()
    listed = {each.id: each for each in store.list()}
    victim = files["manifest"].parent.name if kind in ("arrays", "manifest") else ""
    unread = len(truth.keys() - listed.keys() - {victim})
    for episode_id in listed:
        try:
            store.open(episode_id)
        except (ValueError, KeyError) as error:
            faults.append(str(error))
            unread += episode_id != victim
    try:
        store.datasets.get("all")
    except (ValueError, KeyError) as error:
        faults.append(str(error))
    found = bool(faults or store.damaged or store.degraded)
    return found, listed == truth, unread
