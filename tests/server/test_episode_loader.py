"""Parts of many episodes: the right rows, in an order that a seed decides, continued as if nothing had stopped it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_episode_layout import arrays, assert_equal, two_cameras

from pirl_server.episodes import loader as loader_module
from pirl_server.episodes.loader import EpisodeLoader, EpisodeSet, part_bytes
from pirl_server.episodes.prefetch import prefetched
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.zip_members import ChangedError

COUNTS = (5, 1, 8, 3)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Episodes of different lengths; each call was played for two steps, the last one for one."""
    kept = EpisodeStore(tmp_path)
    for number, count in enumerate(COUNTS):
        episode = two_cameras(calls=count, steps=2 * count - 1)
        call = (np.arange(2 * count - 1) // 2).astype(np.int32)
        steps = replace(episode.steps, call=call, reward=np.arange(2 * count - 1, dtype=np.float32))
        state = episode.calls.state + number
        info = replace(episode.info, id=f"{number:032x}")
        kept.write(replace(episode, info=info, steps=steps, calls=replace(episode.calls, state=state)))
    return kept


@pytest.fixture
def episodes(store: EpisodeStore) -> EpisodeSet:
    return EpisodeSet.of(store, [f"{number:032x}" for number in range(len(COUNTS))])


def key(part: Episode) -> tuple[str, bytes]:
    return part.info.id, part.calls.state.tobytes()


@pytest.mark.parametrize("open_files", [1, 100])
def test_a_part_is_the_rows_of_its_episode(
    store: EpisodeStore, episodes: EpisodeSet, monkeypatch: pytest.MonkeyPatch, open_files: int
) -> None:
    monkeypatch.setattr(loader_module, "OPEN_FILES", open_files)
    whole = [store.open(f"{number:032x}") for number in range(len(COUNTS))]
    for length, stride in ((3, 1), (2, 3), (8, 1), (9, 1), (1, 1)):
        parts = episodes.windows(length, stride)
        assert len(parts) == sum(len(range(0, count - length + 1, stride)) for count in COUNTS)
        for number, start, stop in parts.tolist():
            found, own = episodes.read((number, start, stop)), whole[number]
            for name, values in vars(own.calls).items():
                if name != "images":
                    np.testing.assert_array_equal(getattr(found.calls, name), values[start:stop])
            for name, pixels in own.calls.images.items():
                np.testing.assert_array_equal(found.calls.images[name], pixels[start:stop])
            played = np.arange(2 * start, min(2 * stop, len(own.steps.reward)))
            np.testing.assert_array_equal(found.steps.reward, played)
    for number, part in enumerate(episodes.whole()):
        assert_equal(arrays(episodes.read(part)), arrays(whole[number]))
    np.testing.assert_array_equal(episodes.decisions(), episodes.windows(1))
    for bad in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            episodes.windows(*bad)


def test_a_resumed_order_is_the_uninterrupted_one(episodes: EpisodeSet) -> None:
    make = partial(EpisodeLoader, episodes, episodes.windows(2), batch=3, budget=10**6)
    whole, epochs = make(seed=7), 3
    expected = [[key(part) for part in batch] for _ in range(epochs) for batch in whole]
    assert len(expected) == epochs * len(whole)
    one = [tuple(key(part) for batch in epoch for part in batch) for epoch in (list(whole), list(whole))]
    assert Counter(one[0]) == Counter(one[1]), "each epoch has every part once"
    assert one[0] != one[1], "in another order"
    for stop in range(len(expected) + 1):
        first, found = make(seed=7), list[Any]()
        while len(found) < stop:
            found += [[key(part) for part in batch] for batch in islice(first, stop - len(found))]
        second = make(seed=99)
        second.restore(asdict(first.state()))
        while len(found) < len(expected):
            found += [[key(part) for part in batch] for batch in islice(second, len(expected) - len(found))]
        assert found == expected, f"stopped after {stop} batches"
    other = make(seed=8)
    assert [[key(part) for part in batch] for batch in other] != expected[: len(other)], "negative control"


def test_a_state_of_something_else_is_rejected(episodes: EpisodeSet) -> None:
    state = EpisodeLoader(episodes, episodes.windows(2), 3, 0).state()
    for parts, batch in ((episodes.windows(3), 3), (episodes.windows(2), 4)):
        with pytest.raises(ValueError, match="of other episodes, parts or a batch of another size"):
            EpisodeLoader(episodes, parts, batch, 0).restore(state)
    with pytest.raises(ValueError, match="at least 1"):
        EpisodeLoader(episodes, episodes.windows(2), 0, 0)


def test_what_is_loaded_ahead_stays_within_the_budget() -> None:
    """Loaded and not yet let go: counted where it is made and when the next one was asked for."""
    alive, most, lock = 0, 0, threading.Lock()

    def load(size: int) -> bytes:
        nonlocal alive, most
        with lock:
            alive += size
            most = max(most, alive)
        time.sleep(0.001)
        return bytes(size)

    sizes = [int(size) for size in np.random.default_rng(0).integers(50, 100, 60)]
    for budget, expected in ((400, 400), (10, 100), (10**9, 600)):
        alive = most = 0
        for number, loaded in enumerate(prefetched(((1, partial(load, size)) for size in sizes), len, budget)):
            assert len(loaded) == sizes[number], "in order"
            time.sleep(0.002)
            with lock:
                alive -= len(loaded)
        assert most <= expected
        assert budget == 10 or most > 150, "negative control: it does load ahead"


def test_an_error_comes_in_its_place() -> None:
    def load(number: int) -> int:
        if number == 5:
            raise ChangedError("the sixth")
        return number

    found = list[int]()
    with pytest.raises(ChangedError, match="the sixth"):
        found.extend(prefetched(((1, partial(load, number)) for number in range(9)), lambda _: 1))
    assert found == [0, 1, 2, 3, 4]


def test_a_changed_image_stops_the_loader_and_is_named(store: EpisodeStore, episodes: EpisodeSet) -> None:
    path = store.root / store.summary(f"{2:032x}").path
    data = bytearray(path.read_bytes())
    at = data.index(store.open(f"{2:032x}").calls.images["wrist"][4].tobytes())
    data[at + 5] ^= 1
    path.write_bytes(data)
    loader: Callable[[np.ndarray], list[Any]] = lambda parts: list(EpisodeLoader(episodes, parts, 4, 0))  # noqa: E731
    parts = episodes.windows(2)
    touched = (parts[:, 0] == 2) & (parts[:, 1] <= 4) & (parts[:, 2] > 4)
    assert sum(map(len, loader(parts[~touched]))) == len(parts) - 2
    with pytest.raises(ChangedError, match="row 4 of 'call/images/wrist'"):
        loader(parts)


def test_bytes_of_a_part_are_those_of_its_arrays(episodes: EpisodeSet) -> None:
    part = episodes.read((0, 1, 3))
    assert part_bytes(part) == sum(values.nbytes for values in arrays(part).values())
