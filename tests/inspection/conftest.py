"""A server's root with an archive of two versions and episodes that a real service recorded."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "training")]

from toy_arm import ToyEnv, save_toy

from pirl_contract import ActionChunk, Alteration, ControlSource, Observation, PreviousChunk, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.registry.versions import Registry
from pirl_server.serving.camera_codecs import CameraCodecs
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

HORIZON, EXECUTE, DELAY = 8, 5, 2
PERIOD_NS = 50_000_000


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass
class Root:
    """What lies below a server's root."""

    path: Path
    registry: Registry
    store: EpisodeStore
    first: str
    """the version that drew the episodes"""
    second: str
    """another one, with other weights"""

    def load(self, version: str) -> FlowPolicy:
        return FlowPolicy.load(self.registry.get(version).path)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    path = tmp_path_factory.mktemp("root")
    registry = Registry(path / "models")
    versions = []
    for seed in (0, 1):
        folder = save_toy(
            path / f"made-{seed}", seed, horizon=HORIZON, sees=True, execute_horizon=EXECUTE, prefix_delay=3
        )
        policy = FlowPolicy.load(folder)
        registry.add(policy.version, folder, policy.contract)
        versions.append(policy.version)
    registry.point("production", versions[1], "test", "newer")
    return Root(path, registry, EpisodeStore(path / "episodes"), *versions)


def observations(count: int) -> list[Observation]:
    env = ToyEnv(sees=True, length=10**6)
    first = env.reset(0)
    seen = [first]
    for _ in range(count - 1):
        env.step(np.zeros(2, np.float32))
        seen.append(env.observe())
    return [
        Observation(each.images, each.state, first.instruction, "toy", 1 + number * EXECUTE * PERIOD_NS)
        for number, each in enumerate(seen)
    ]


def outcomes(chunk: ActionChunk, observation: Observation, first: int, count: int) -> list[StepOutcome]:
    """Actions `first`, ... of a chunk as played; the last one is a person's, the one before it altered."""
    return [
        StepOutcome(
            chunk.chunk_id,
            index,
            chunk.actions[index] * (0.5 if index == first + count - 2 else 1.0),
            observation.state,
            alterations=Alteration.LIMIT | Alteration.BLENDED if index == first + count - 2 else Alteration.NONE,
            source=ControlSource.HUMAN if index == first + count - 1 else ControlSource.POLICY,
            time_ns=observation.capture_time_ns + (index + 1) * PERIOD_NS,
        )
        for index in range(first, first + count)
    ]


def record(root: Root, method: str = "", explore: bool = False, calls: int = 4, codec: str = "") -> Episode:
    """An episode of so many calls over a socket; with a method, each but the first continues the one before it."""
    codecs = CameraCodecs.parse([f"{name}={codec}" for name in ("base", "wrist")] if codec else [])
    engine, recorder = Engine(queue_size=4), Recorder(root.store)
    policy = root.load(root.first)
    engine.swap(policy)
    server, port = start_grpc(PolicyService(engine, recorder, explore=explore, codecs=codecs), "127.0.0.1:0")
    client = PolicyClient(f"127.0.0.1:{port}", "toy", timeout_s=60.0)
    try:
        client.info()
        seen = observations(calls)
        episode_id = client.start_episode(policy.contract, seen[0].instruction)
        done: list[StepOutcome] = []
        chunk: ActionChunk | None = None
        for observation in seen:
            previous = None
            if method and chunk is not None:
                previous = PreviousChunk(chunk.actions[EXECUTE:], DELAY, method)  # type: ignore[arg-type]
            chunk = client.infer(observation, done, previous)
            done = outcomes(chunk, observation, DELAY if previous is not None else 0, EXECUTE)
        client.end_episode("success", "sim", "success", outcomes=done)
    finally:
        client.close()
        server.stop(None).wait()
        engine.close()
        recorder.close()
    return root.store.open(episode_id)


@pytest.fixture(scope="session")
def plain(root: Root) -> Episode:
    return record(root)


@pytest.fixture(scope="session")
def explored(root: Root) -> Episode:
    return record(root, explore=True)


@pytest.fixture(scope="session")
def as_jpeg(root: Root) -> Episode:
    """Its images are stored as JPEG, and the policy saw what is stored."""
    return record(root, codec="jpeg:60")


@pytest.fixture(scope="session", params=["guided", "prefix"])
def continued(root: Root, request: pytest.FixtureRequest) -> Episode:
    return record(root, method=request.param)
