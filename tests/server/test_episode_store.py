"""Whole or not there at all: kills, damage and foreign directories."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pirl_contract import Camera, Contract, Field
from pirl_server.episodes import manifest
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Steps
from pirl_server.episodes.store import GROUP, EpisodeStore

WRITER = """
import sys, dataclasses, uuid
from pathlib import Path
from typing import Any
from pirl_server.episodes.store import EpisodeStore
store = EpisodeStore(Path(sys.argv[1]))
episode = store.open(sys.argv[2])
print("ready", flush=True)
while True:
    store.write(dataclasses.replace(episode, info=dataclasses.replace(episode.info, id=uuid.uuid4().hex)))
"""


def make_episode(calls: int = 3, steps: int = 7, size: int = 8) -> Episode:
    rng = np.random.default_rng(0)
    fields = (Field("a", "rad"), Field("b", "rad"))
    contract = Contract("test", (Camera("wrist", size, size),), fields, fields, 20.0)
    info = EpisodeInfo(
        uuid.uuid4().hex, "arm-1", contract, "push", True, "sim", "success", "tiny", ("v1",), 3, {}, "2026-01-01"
    )

    def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32)

    def zeros(count: int, dtype: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        return np.zeros(count, dtype)

    whole = {name: zeros(calls, "i4") for name in ("sde_index", "policy_version", "step")}
    scalars = {name: floats(calls) for name in ("std", "noise_level", "value", "latency_ms")}
    return Episode(
        info,
        Calls(
            images={"wrist": rng.integers(0, 256, (calls, size, size, 3), dtype=np.uint8)},
            state=floats(calls, 2),
            capture_time_ns=zeros(calls, "i8"),  # type: ignore[arg-type]
            chunk=floats(calls, 5, 2),
            chain=floats(calls, 4, 5, 2),
            log_prob=floats(calls, 5, 2),
            seed=zeros(calls, "u8"),  # type: ignore[arg-type]
            **whole,  # type: ignore[arg-type]
            **scalars,  # type: ignore[arg-type]
        ),
        Steps(
            executed=floats(steps, 2),
            state=floats(steps, 2),
            reward=floats(steps),
            alterations=zeros(steps, "u4"),  # type: ignore[arg-type]
            source=zeros(steps, "u1"),  # type: ignore[arg-type]
            call=zeros(steps, "i4"),  # type: ignore[arg-type]
            index=zeros(steps, "i4"),  # type: ignore[arg-type]
            time_ns=zeros(steps, "i8"),  # type: ignore[arg-type]
            terminated=zeros(steps, "?"),  # type: ignore[arg-type]
            truncated=zeros(steps, "?"),  # type: ignore[arg-type]
        ),
    )


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path)


def test_what_is_written_is_read(store: EpisodeStore) -> None:
    episode = make_episode()
    summary = store.write(episode)
    read = store.open(summary.id)
    assert read.info == episode.info
    for table, other in ((episode.calls, read.calls), (episode.steps, read.steps)):
        for name, values in vars(table).items():
            if name != "images":
                np.testing.assert_array_equal(values, vars(other)[name])
                assert values.dtype == vars(other)[name].dtype
    np.testing.assert_array_equal(episode.calls.images["wrist"], read.calls.images["wrist"])
    assert EpisodeStore(store.root).list() == store.list() == [summary]
    assert store.list("arm-2") == []


def test_dimensions_that_disagree_are_refused_and_leave_nothing(store: EpisodeStore) -> None:
    episode = make_episode()
    short = replace(episode, steps=replace(episode.steps, reward=episode.steps.reward[:-1]))
    with pytest.raises(ValueError, match="'step' is 6 here and 7 elsewhere"):
        store.write(short)
    assert store.list() == []
    assert store.sweep() == 0


@pytest.mark.slow
def test_ten_kills_at_random_points_leave_only_whole_episodes(store: EpisodeStore) -> None:
    """What is listed verifies. The staging leftovers show that kills did fall into writes."""
    first = store.write(make_episode(calls=20, steps=60, size=48))
    rng, leftovers = random.Random(0), 0
    for _ in range(10):
        command = [sys.executable, "-c", WRITER, str(store.root), first.id]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.4))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        leftovers += EpisodeStore(store.root).sweep()
    listed = EpisodeStore(store.root).list()
    for summary in listed:
        manifest.verify(store.root / Path(summary.path).parent)
        assert len(store.open(summary.id).steps.reward) == 60
    assert len(listed) == sum(1 for _ in (store.root / "episodes" / "arm-1").iterdir())
    assert leftovers > 0


def damage_byte(home: Path) -> None:
    """In the pixels of the wrist's images, which take most of the file."""
    data = bytearray((home / GROUP).read_bytes())
    data[len(data) // 2] ^= 1
    (home / GROUP).write_bytes(data)


def add_file(home: Path) -> None:
    (home / "extra").write_text("x")


@pytest.mark.parametrize("damage", [damage_byte, add_file])
def test_damage_is_found_on_opening(store: EpisodeStore, damage: Callable[[Path], None]) -> None:
    summary = store.write(make_episode(size=128))
    damage((store.root / summary.path).parent)
    with pytest.raises(ValueError, match=r"row 1 of .call/images/wrist. was changed|not in the manifest"):
        store.open(summary.id)


def test_torn_foreign_and_linked_directories_are_never_listed(store: EpisodeStore, tmp_path: Path) -> None:
    summary = store.write(make_episode())
    home = store.root / "episodes" / "arm-1"
    (home / ("0" * 32)).mkdir()
    (home / "notes").mkdir()
    torn = store.write(make_episode())
    (home / torn.id / GROUP).unlink()
    os.symlink(home / summary.id, home / ("1" * 32))
    fresh = EpisodeStore(store.root)
    assert [found.id for found in fresh.list()] == [summary.id]
    for unknown in ("0" * 32, "1" * 32, torn.id, "../" + summary.id, "*", ""):
        with pytest.raises(KeyError):
            fresh.summary(unknown)


def test_ids_that_could_leave_the_store_are_refused(store: EpisodeStore) -> None:
    episode = make_episode()
    changes: list[dict[str, Any]] = [{"robot_id": "../x"}, {"robot_id": "."}, {"robot_id": "a\n"}, {"id": "../../x"}]
    for change in changes:
        with pytest.raises(ValueError, match=r"robot id|episode id"):
            store.write(replace(episode, info=replace(episode.info, **change)))
