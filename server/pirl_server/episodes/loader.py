"""Parts of many episodes in an order that a seed decides, loaded ahead, continued where a saved state says.

A part is an `Episode` of some calls that follow each other, with the steps that played them: a window of 16, a single
decision, or a whole one. Images are read in one go, and nothing is read of the others.

    episodes = EpisodeSet.of(store, ids)
    loader = EpisodeLoader(episodes, episodes.windows(16), batch=32, seed=0)
    for batch in loader:            # one epoch; the next `for` is the next one
        ...
        saved = loader.state()      # after this batch
    loader.restore(saved)

M = parts, L = calls of one.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pirl_server.episodes.prefetch import BUDGET_BYTES, WORKERS, prefetched
from pirl_server.episodes.schema import Calls, Episode, Steps
from pirl_server.episodes.store import EpisodeStore

OPEN_BYTES = 64 * 2**20
OPEN_FILES = 256
"""episodes whose tables are kept, at most so many bytes of them"""
Table = TypeVar("Table", Calls, Steps)
Parts = NDArray[np.int64]
"""[M, 3]: number of the episode, its first call, and the one after its last"""


@dataclass(frozen=True)
class LoaderState:
    """Where a loader stands."""

    seed: int
    epoch: int
    batches: int
    """that were taken of this epoch"""
    digest: str
    """of episodes, parts and batch size: a state of others can't be continued"""


class EpisodeSet:
    """Episodes in a given order, opened when a part of one is read. Any thread."""

    def __init__(self, openers: Sequence[Callable[[], Episode]], calls: Sequence[int], digest: str) -> None:
        """`openers` open each lazily; `calls` says how many each has; `digest` names their content."""
        self.openers, self.calls, self.digest = tuple(openers), np.array(calls, np.int64), digest
        self._open: OrderedDict[int, tuple[int, Episode]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, store: EpisodeStore, ids: Sequence[str]) -> EpisodeSet:
        """Episodes of a store. Raises KeyError for an unknown id."""
        lines = [f"{each} {store.digest(each)}\n" for each in ids]
        openers = [partial(store.open, each, lazily=True) for each in ids]
        calls = [store.summary(each).calls for each in ids]
        return cls(openers, calls, hashlib.sha256("".join(lines).encode()).hexdigest())

    def __len__(self) -> int:
        return len(self.openers)

    def whole(self) -> Parts:
        """Every episode in one part [M, 3]."""
        return np.stack([np.arange(len(self)), np.zeros(len(self), np.int64), self.calls], axis=1)

    def windows(self, length: int, stride: int = 1) -> Parts:
        """Every `stride`-th window of `length` calls of each episode [M, 3]; shorter episodes have none.

        Raises ValueError for a length or a stride below 1.
        """
        if length < 1 or stride < 1:
            raise ValueError(f"windows of {length} calls, every {stride}: both must be at least 1")
        found = [np.empty((0, 3), np.int64)]
        for number, count in enumerate(self.calls.tolist()):
            start = np.arange(0, count - length + 1, stride)
            found.append(np.stack([np.full(len(start), number), start, start + length], axis=1))
        return np.concatenate(found)

    def decisions(self) -> Parts:
        """Every call alone [M, 3]."""
        return self.windows(1)

    def read(self, part: Sequence[int]) -> Episode:
        """Read one of the parts. Numbers of calls and steps in it count from the start of its episode.

        Raises what opening and reading the episode does.
        """
        number, start, stop = (int(each) for each in part)
        episode = self._episode(number)
        whole = start == 0 and stop == int(self.calls[number])
        mine = np.flatnonzero((episode.steps.call >= start) & (episode.steps.call < stop))
        steps = slice(int(mine[0]), int(mine[-1]) + 1) if len(mine) else slice(0, 0)
        images = {name: np.ascontiguousarray(each[start:stop]) for name, each in episode.calls.images.items()}
        calls = _rows(replace(episode.calls, images={}), slice(start, stop))
        return replace(
            episode,
            calls=replace(calls, images=images),
            steps=episode.steps if whole else _rows(episode.steps, steps),
            final=episode.final if whole else None,
        )

    def _episode(self, number: int) -> Episode:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number][1]
            episode = self.openers[number]()
            self._open[number] = table_bytes(episode), episode
            while len(self._open) > 1 and (
                len(self._open) > OPEN_FILES or sum(size for size, _ in self._open.values()) > OPEN_BYTES
            ):
                self._open.popitem(last=False)
            return episode


class EpisodeLoader:
    """Batches of parts; each pass over it is one epoch in another order, or the rest of one. Not thread-safe."""

    def __init__(
        self,
        episodes: EpisodeSet,
        parts: Parts,
        batch: int,
        seed: int,
        budget: int = BUDGET_BYTES,
        workers: int = WORKERS,
    ) -> None:
        """`parts` [M, 3] of these episodes; the last batch of an epoch may be smaller. `budget` bytes are loaded ahead.

        Raises ValueError for a batch below 1.
        """
        if batch < 1:
            raise ValueError(f"batches of {batch} parts: give at least 1")
        self._episodes, self._parts, self._batch = episodes, parts, batch
        self._seed, self._budget, self._workers = seed, budget, workers
        content = hashlib.sha256(f"{episodes.digest} {batch} ".encode() + np.ascontiguousarray(parts).tobytes())
        self._digest = content.hexdigest()
        self._epoch, self._batches = 0, 0

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return -(-len(self._parts) // self._batch)

    def __iter__(self) -> Iterator[list[Episode]]:
        """Yield what is left of this epoch's batches; then the next epoch begins."""
        order = self.order(self._epoch)[self._batches * self._batch :]
        tasks = ((int(part[2] - part[1]), partial(self._episodes.read, part)) for part in order)
        loaded = prefetched(tasks, part_bytes, self._budget, self._workers)
        while batch := list(islice(loaded, self._batch)):
            self._batches += 1
            yield batch
        self._epoch, self._batches = self._epoch + 1, 0

    def order(self, epoch: int) -> Parts:
        """Parts [M, 3] in the order of an epoch: a function of seed and epoch alone."""
        return self._parts[np.random.default_rng([self._seed, epoch]).permutation(len(self._parts))]

    def state(self) -> LoaderState:
        """Say where it stands: after the batch that was taken last."""
        return LoaderState(self._seed, self._epoch, self._batches, self._digest)

    def restore(self, state: LoaderState | Mapping[str, Any]) -> None:
        """Continue after the batch that was taken last when `state` was saved, its fields or itself.

        Raises ValueError for a state of other episodes, parts or batches.
        """
        saved = state if isinstance(state, LoaderState) else LoaderState(**state)
        if saved.digest != self._digest:
            raise ValueError("the saved state is of other episodes, parts or a batch of another size")
        self._seed, self._epoch, self._batches = saved.seed, saved.epoch, saved.batches


def table_bytes(episode: Episode) -> int:
    """Bytes of an episode's tables, without its images."""
    tables = [{**vars(episode.calls), "images": np.empty(0)}, vars(episode.steps)]
    return sum(each.nbytes for table in tables for each in table.values())


def part_bytes(episode: Episode) -> int:
    """Bytes of all that a part holds."""
    return table_bytes(episode) + sum(each.nbytes for each in episode.calls.images.values())


def _rows(table: Table, rows: slice) -> Table:
    """The same table of some rows: copies, so that the episode's own can go."""
    columns = {name: each[rows].copy() for name, each in vars(table).items() if name != "images"}
    return replace(table, **columns)
