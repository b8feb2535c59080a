"""The build before one file per episode, from its commit: its store, and plain zarr for images of a window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from our_episode import make_episode, small
from scene import CAMERAS, Size

from pirl_server.episodes.store import EpisodeStore


class Before:
    def __init__(self, folder: Path, size: Size) -> None:
        self._store, self._size = EpisodeStore(folder), size
        self._ids: list[str] = []
        self._paths: list[Path] = []

    def prepare(self, number: int, data: dict[str, np.ndarray]) -> None:
        self._made = make_episode(data, self._size)

    def write(self, number: int, data: dict[str, np.ndarray]) -> None:
        summary = self._store.write(self._made)
        self._ids.append(summary.id)
        self._paths.append(self._store.root / summary.path)

    def seal(self) -> None:
        self._groups = [zarr.open_group(path, mode="r") for path in self._paths]

    def images(self, number: int, start: int, stop: int) -> np.ndarray:
        """Not checked: that build compared all of an episode, or nothing."""
        group = self._groups[number]
        group["call/state"][start:stop]
        return np.concatenate([group[f"call/images/{name}"][start:stop] for name in CAMERAS])

    def small(self, turn: int) -> dict[str, float]:
        return small(self._store.root, turn)

    def whole(self, number: int) -> None:
        self._store.open(self._ids[number])


def make(name: str, folder: Path, size: Size) -> Before:
    return Before(folder, size)
