"""Episodes to write, and what a store must say of them afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pirl_contract import Camera, Contract, Field
from pirl_server.atomic_files import utc_now
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Steps
from pirl_server.episodes.store import EpisodeStore

CHAIN = ("chunk", "chain", "log_prob")


def made(calls: int, steps: int, size: int) -> Episode:
    """Random numbers in the shape of an episode with two square cameras."""
    rng, H, D, K = np.random.default_rng(0), 10, 7, 4
    joints = tuple(Field(f"q{n}", "rad") for n in range(D))
    contract = Contract("test", (Camera("base", size, size), Camera("wrist", size, size)), joints, joints, 20.0)
    info = EpisodeInfo(
        "0" * 32, "arm-1", contract, "push", None, "", "time_limit", "tiny", ("v1",), 3, {}, "2026-01-01T00:00:00+00:00"
    )

    def floats(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    def zeros(count: int, dtype: str) -> Any:
        return np.zeros(count, dtype)

    pixels = (calls, size, size, 3)
    return Episode(
        info,
        Calls(
            images={each.name: rng.integers(0, 256, pixels, dtype=np.uint8) for each in contract.cameras},
            state=floats(calls, D), capture_time_ns=zeros(calls, "i8"), chunk=floats(calls, H, D),
            chain=floats(calls, K + 1, H, D), log_prob=floats(calls, H, D), seed=zeros(calls, "u8"),
            **{name: zeros(calls, "i4") for name in ("sde_index", "policy_version", "step")},
            **{name: floats(calls) for name in ("std", "noise_level", "value", "latency_ms")},
        ),
        Steps(
            executed=floats(steps, D), state=floats(steps, D), reward=floats(steps), alterations=zeros(steps, "u4"),
            source=zeros(steps, "u1"), call=zeros(steps, "i4"), index=zeros(steps, "i4"), time_ns=zeros(steps, "i8"),
            terminated=zeros(steps, "?"), truncated=zeros(steps, "?"),
        ),
    )  # fmt: skip


def another(episode: Episode, robot_id: str = "arm-1") -> Episode:
    """The same under a new id."""
    return replace(episode, info=replace(episode.info, id=uuid.uuid4().hex, robot_id=robot_id, created=utc_now()))


@dataclass
class Acknowledged:
    """What writers were told is on the disk."""

    episodes: set[str] = field(default_factory=set)
    labels: dict[str, bool] = field(default_factory=dict)
    """newest label by id"""


def check(root: Path, wanted: Acknowledged, episode: Episode) -> dict[str, int]:
    """Open the store as a server does after a crash; count what is lost, and what is listed but not as it was."""
    store = EpisodeStore(root)
    store.sweep()
    listed = {each.id: each for each in store.list()}
    corrupt = sum(not _same(store, each, episode) for each in listed)
    # A failure is followed by a success, which may be there before it is acknowledged.
    kept = {True: (True,), False: (False, True)}
    labels = sum(listed[each].success not in kept[said] for each, said in wanted.labels.items() if each in listed)
    return {
        "acknowledged episodes lost": len(wanted.episodes - listed.keys()),
        "acknowledged labels lost": labels,
        "corrupt episodes visible": corrupt,
        "incomplete episodes published": len(store.damaged),
        "episodes": len(listed),
    }


def _same(store: EpisodeStore, episode_id: str, episode: Episode) -> bool:
    try:
        found = store.open(episode_id)
    except (ValueError, KeyError, OSError):
        return False
    images = (np.array_equal(found.calls.images[name], pixels) for name, pixels in episode.calls.images.items())
    tables = (np.array_equal(getattr(found.calls, name), getattr(episode.calls, name)) for name in CHAIN)
    return all(images) and all(tables) and np.array_equal(found.steps.executed, episode.steps.executed)


def added(total: dict[str, int], found: Mapping[str, int]) -> None:
    """Add up counts."""
    for name, count in found.items():
        total[name] = total.get(name, 0) + count
