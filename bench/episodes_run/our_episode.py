"""A pirl `Episode` of the scene's data: for the present build and for one before."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import scene
from scene import ACTION, CAMERAS, FPS, HORIZON, NODES, STATE, Size

from pirl_contract import Camera, Contract, Field
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Steps
from pirl_server.episodes.store import EpisodeStore


def make_episode(data: dict[str, Any], size: Size) -> Episode:
    """A call and a step for each image; chains of 4 denoise steps."""
    count, zeros = size.steps, np.zeros
    contract = Contract(
        "bench", tuple(Camera(name, size.side, size.side) for name in CAMERAS),
        tuple(Field(f"s{n}", "rad") for n in range(STATE)), tuple(Field(f"a{n}", "rad") for n in range(ACTION)), FPS,
    )  # fmt: skip
    info = EpisodeInfo(
        uuid.uuid4().hex, "bench-1", contract, "push", True, "sim", "success", "bench", ("v1",), 1, {}, "2026-01-01"
    )
    chunk = np.repeat(data["action"][:, None], HORIZON, axis=1)
    chain, scalar = np.repeat(chunk[:, None], NODES, axis=1), zeros(count, np.float32)
    integer, long = zeros(count, np.int32), zeros(count, np.int64)
    calls = Calls(
        images={name: data[name] for name in CAMERAS}, state=data["state"], capture_time_ns=long, chunk=chunk,
        chain=chain, sde_index=integer, log_prob=chunk, std=scalar, noise_level=scalar, value=scalar,
        seed=zeros(count, np.uint64), policy_version=integer, step=np.arange(count, dtype=np.int32), latency_ms=scalar,
    )  # fmt: skip
    steps = Steps(
        executed=data["action"], state=data["state"], reward=scalar, alterations=zeros(count, np.uint32),
        source=zeros(count, np.uint8), call=np.arange(count, dtype=np.int32), index=integer, time_ns=long,
        terminated=zeros(count, np.bool_), truncated=zeros(count, np.bool_),
    )  # fmt: skip
    return Episode(info, calls, steps)


def small(folder: Path, turn: int) -> dict[str, float]:
    """Ten small episodes (10 calls, two cameras of 16 pixels): files and bytes of one, and what it takes."""
    size, store, made = (
        Size(10, 16),
        EpisodeStore(folder / f"small{turn}"),
        [scene.episode(n, Size(10, 16)) for n in range(10)],
    )
    episodes = [make_episode(each, size) for each in made]
    began, cpu = time.perf_counter(), time.process_time()
    ids = [store.write(each).id for each in episodes]
    write_s, write_cpu = time.perf_counter() - began, time.process_time() - cpu
    store.open(ids[0])
    cpu = time.process_time()
    for each in ids:
        store.open(each)
    read_cpu = time.process_time() - cpu
    home = store.root / "episodes" / "bench-1" / ids[0]
    found = [home, *home.rglob("*")]
    return {
        "entries": len(found), "bytes": sum(each.stat().st_blocks * 512 for each in found),
        "write ms": 100 * write_s, "write CPU ms": 100 * write_cpu, "read CPU ms": 100 * read_cpu,
    }  # fmt: skip
