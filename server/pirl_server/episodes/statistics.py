"""Statistics of state and executed actions over many episodes: read once, in a stream, and kept by content.

Mean, deviation and extremes are exact. Quantiles are those of at most 100,000 rows, drawn evenly from all: exact below
that, and within 0.1 of a percentile's rank above. T = rows, N = entries of the vector.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_server.atomic_files import read_json, write_json
from pirl_server.episodes.loader import EpisodeSet, table_bytes
from pirl_server.episodes.prefetch import prefetched
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES

KEPT_ROWS = 100_000
QUANTILES = {"q01": 0.01, "q99": 0.99}
FOLDER = "statistics"
"""in a store: one file for each content that was asked for"""


@dataclass(frozen=True)
class Statistics:
    """Of one vector; each field but the count has an entry [N] for each of its."""

    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """of the population"""
    low: tuple[float, ...]
    high: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]


class Stream:
    """Takes in rows of one vector, in memory that does not grow beyond `KEPT_ROWS` of them."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._count = 0
        self._kept = np.empty((0, 0), np.float32)
        self._mean = self._squares = self._low = self._high = np.empty(0)

    def add(self, rows_TN: NDArray[np.float32]) -> None:
        """Take in rows; those that are not finite in every entry are left out."""
        rows = rows_TN[np.isfinite(rows_TN).all(axis=1)].astype(np.float64)
        if not len(rows):
            return
        mean, squares = rows.mean(axis=0), ((rows - rows.mean(axis=0)) ** 2).sum(axis=0)
        if not self._count:
            self._mean, self._squares, self._low, self._high = mean, squares, rows.min(axis=0), rows.max(axis=0)
            self._kept = np.empty((0, rows.shape[1]), np.float32)
        else:
            total = self._count + len(rows)
            apart = mean - self._mean  # Chan, Golub and LeVeque 1979, equation 2.1
            self._squares = self._squares + squares + apart**2 * (self._count * len(rows) / total)
            self._mean = self._mean + apart * (len(rows) / total)
            self._low, self._high = np.minimum(self._low, rows.min(axis=0)), np.maximum(self._high, rows.max(axis=0))
        self._keep(rows.astype(np.float32))
        self._count += len(rows)

    def _keep(self, rows: NDArray[np.float32]) -> None:
        """Keep each row so far with the same probability (Vitter 1985, algorithm R)."""
        room = min(len(rows), max(0, KEPT_ROWS - len(self._kept)))
        self._kept = np.concatenate([self._kept, rows[:room]])
        seen = self._count + np.arange(room, len(rows))
        place = self._random.integers(0, seen + 1)
        for row, at in zip(np.flatnonzero(place < KEPT_ROWS) + room, place[place < KEPT_ROWS]):
            self._kept[at] = rows[row]

    def finish(self) -> Statistics:
        """Return them. Raises ValueError when no row was finite."""
        if not self._count:
            raise ValueError("no statistics: there is no row with finite values only")
        quantiles = {name: np.quantile(self._kept, share, axis=0) for name, share in QUANTILES.items()}
        std = np.sqrt(self._squares / self._count)
        found = {"mean": self._mean, "std": std, "low": self._low, "high": self._high} | quantiles
        return Statistics(self._count, **{name: tuple(values.tolist()) for name, values in found.items()})


def stream_statistics(episodes: Iterable[Episode]) -> dict[str, Statistics]:
    """Read episodes once. Of `state` at each call and each `action` that was executed. Raises ValueError: none."""
    streams = {"state": Stream(), "action": Stream()}
    for episode in episodes:
        streams["state"].add(episode.calls.state)
        streams["action"].add(episode.steps.executed)
    return {name: stream.finish() for name, stream in streams.items()}


def dataset_statistics(store: EpisodeStore, ids: Sequence[str]) -> dict[str, Statistics]:
    """Return those of episodes of a store, from its folder `statistics` where the same content was read before.

    Raises KeyError for an unknown id, ValueError for none or for one of another width, and what opening raises.
    """
    episodes = EpisodeSet.of(store, sorted(ids))
    path = store.root / FOLDER / f"{episodes.digest}.json"
    if path.exists():
        return {name: Statistics(**_tuples(each)) for name, each in read_json(path).items()}
    tasks = zip(episodes.calls.tolist(), episodes.openers)
    found = stream_statistics(prefetched(tasks, table_bytes))
    path.parent.mkdir(exist_ok=True)
    write_json(path, {name: asdict(each) for name, each in found.items()})
    return found


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def statistics(arguments: Sequence[str]) -> int:
    """Run `pirl episodes statistics`: JSON of mean, deviation, extremes and quantiles, for a normalisation."""
    parser = argparse.ArgumentParser(prog="pirl episodes statistics", description=statistics.__doc__)
    parser.add_argument("--root", type=Path, default=Path("runs/server"), help="that of the server")
    parser.add_argument("--robot", help="of this robot's episodes only; default: of all")
    options = parser.parse_args(arguments)
    if not (options.root / EPISODES / "episodes").is_dir():
        parser.error(f"'{options.root}' holds no episodes: give the folder that `pirl serve --root` was given")
    store = EpisodeStore(options.root / EPISODES)
    ids = [each.id for each in store.list(options.robot) if not each.dry_run]
    try:
        found = dataset_statistics(store, ids)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps({"episodes": len(ids)} | {name: asdict(each) for name, each in found.items()}, indent=1))
    return 0
