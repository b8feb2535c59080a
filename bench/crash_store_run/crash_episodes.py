"""Episodes to write while things break, and what a store must say of them afterwards."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pirl_contract import Camera, Contract, Field, Observation
from pirl_server.episodes import manifest
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Steps
from pirl_server.episodes.store import EpisodeStore

CAMERAS, ACTION, HORIZON, NODES = ("base", "wrist"), 7, 10, 5


def made(pixels: int, calls: int) -> Episode:
    """An episode of two cameras, five executed steps for each call, and its last observation."""
    rng, steps = np.random.default_rng(pixels + calls), 5 * calls
    joints = tuple(Field(f"q{index}", "rad") for index in range(ACTION))
    contract = Contract("bench", tuple(Camera(name, pixels, pixels) for name in CAMERAS), joints, joints, 20.0)
    info = EpisodeInfo(
        uuid.uuid4().hex, "arm-1", contract, "push the cube", None, "", "time_limit", "tiny", ("v1",), 5, {},
        "2026-01-01",
    )  # fmt: skip

    def floats(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    def images(*shape: int) -> dict[str, Any]:
        return {name: rng.integers(0, 256, (*shape, pixels, pixels, 3), np.uint8) for name in CAMERAS}

    scalars = {name: floats(calls) for name in ("std", "noise_level", "value", "latency_ms")}
    called = Calls(
        images(calls), floats(calls, ACTION), np.arange(calls), floats(calls, HORIZON, ACTION),
        floats(calls, NODES, HORIZON, ACTION), np.zeros(calls, "i4"), floats(calls, HORIZON, ACTION),
        seed=np.arange(calls, dtype="u8"), policy_version=np.zeros(calls, "i4"), step=5 * np.arange(calls, dtype="i4"),
        **scalars,
    )  # fmt: skip
    last = np.arange(steps) == steps - 1
    played = Steps(
        floats(steps, ACTION), floats(steps, ACTION), floats(steps), np.zeros(steps, "u4"), np.zeros(steps, "u1"),
        (np.arange(steps) // 5).astype("i4"), (np.arange(steps) % 5).astype("i4"), np.arange(steps), last & False, last,
    )  # fmt: skip
    return Episode(info, called, played, Observation(images(), floats(ACTION), "push the cube", "arm-1", 0))


def again(episode: Episode) -> Episode:
    """The same under a new id."""
    return replace(episode, info=replace(episode.info, id=uuid.uuid4().hex))


def fingerprint(episode: Episode) -> str:
    """SHA-256 of all that is in it but its id and its label."""
    found = hashlib.sha256()
    info = asdict(replace(episode.info, id="", success=None, label_source=""))
    found.update(json.dumps(info, sort_keys=True, default=str).encode())
    tables: list[Mapping[str, Any]] = [vars(episode.calls), episode.calls.images, vars(episode.steps)]
    if episode.final is not None:
        tables += [{"state": episode.final.state}, episode.final.images]
    for table in tables:
        for name, values in sorted(table.items()):
            if name != "images":
                array = np.ascontiguousarray(values)
                found.update(f"{name} {array.dtype} {array.shape}".encode())
                found.update(array.data)
    return found.hexdigest()


@dataclass
class Promised:
    """What was acknowledged, and what was asked for and may have happened."""

    whole: str
    """fingerprint of every episode"""
    episodes: set[str] = field(default_factory=set)
    """ids that `write` has returned"""
    labels: dict[str, bool] = field(default_factory=dict)
    """by id, what `label` has returned for"""
    asked: dict[str, bool] = field(default_factory=dict)
    """by id, the label that was begun after the acknowledged one"""


@dataclass
class Found:
    """What a fresh process sees. A list of each kind, with one line for every case."""

    listed: int = 0
    lost: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    """directories that are neither listed nor named as damaged"""
    labels_lost: list[str] = field(default_factory=list)
    swept: int = 0
    damaged: int = 0
    """named by the store"""

    @property
    def faults(self) -> list[str]:
        """All that must not be."""
        return [*self.lost, *self.corrupt, *self.unnamed, *self.labels_lost]


def looked_at(root: Path, promised: Promised) -> Found:
    """Start as a server does, then compare every episode and label with what was promised."""
    store, found = EpisodeStore(root), Found()
    found.swept = store.sweep()
    listed = {each.id: each for each in store.list()}
    found.listed = len(listed)
    found.lost = [f"episode {id_} was acknowledged and is lost" for id_ in promised.episodes - listed.keys()]
    for id_, summary in listed.items():
        try:
            manifest.verify(root / Path(summary.path).parent)
            same = fingerprint(store.open(id_)) == promised.whole
        except (ValueError, OSError, KeyError) as error:
            found.corrupt.append(f"episode {id_} is listed and can't be read: {error}")
            continue
        if not same:
            found.corrupt.append(f"episode {id_} is listed and is not what was written")
        wanted = {promised.labels.get(id_), promised.asked.get(id_, promised.labels.get(id_))}
        if summary.success not in wanted:
            found.labels_lost.append(f"episode {id_} has the label {summary.success}, not one of {wanted}")
    homes = {home.name for home in (root / "episodes").glob("*/*")}
    found.damaged = len(store.damaged)
    found.unnamed = [f"'{name}' is neither listed nor named" for name in homes - listed.keys() - store.damaged.keys()]
    return found


def below(tries: int) -> float:
    """Upper end of the 95 % interval of a share of which none was found in so many independent tries."""
    return float(1 - 0.05 ** (1 / tries)) if tries else 1.0
