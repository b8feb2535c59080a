"""A small policy whose every chunk names its version; a service, a deployment and a whole server around it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from pirl_contract import Camera, Contract, Field, Observation
from pirl_contract.client import PolicyClient
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.served_policy import PolicyRequest, PolicySample, one_by_one
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

sys.path.append(str(Path(__file__).parent))  # certificates.py

from browser import Browser
from deployed_world import World, registry_of
from whole_server import Server

CONTRACT = Contract(
    robot="test-arm",
    cameras=(Camera("wrist", 8, 6),),
    state=(Field("q0", "rad"), Field("q1", "rad"), Field("grip", "m")),
    action=(Field("dq0", "rad", -1.0, 1.0), Field("dq1", "rad", -1.0, 1.0)),
    rate_hz=20.0,
)
INSTRUCTION = "push the cube to the goal"


@dataclass(frozen=True)
class NamedPolicy:
    """Every entry of its chunks is `mark`; the chain is random by seed, with a density when it explores.

    A batch of any size waits once for `before` and takes `delay_s`, as on a device.
    """

    version: str = "v1"
    mark: float = 1.0
    contract: Contract = CONTRACT
    denoise_steps: int = 4
    horizon: int = 5
    execute_horizon: int = 3
    delay_s: float = 0.0
    name: str = "named"
    instructions: tuple[str, ...] = (INSTRUCTION,)
    continuations: tuple[str, ...] = ()
    before: Callable[[], None] = field(default=lambda: None)
    batches: list[list[PolicyRequest]] = field(default_factory=list)
    """what it was asked, batch by batch"""

    def sample(self, observation: Observation, *, explore: bool, seed: int) -> PolicySample:
        if observation.state.shape != (self.contract.state_dim,):
            raise ValueError(f"state has {observation.state.size} entries, the contract {self.contract.state_dim}")
        shape = (self.horizon, self.contract.action_dim)
        chain = np.random.default_rng(seed).normal(size=(self.denoise_steps + 1, *shape)).astype(np.float32)
        return PolicySample(
            actions=np.full(shape, self.mark, np.float32),
            chain=chain,
            sde_index=2 if explore else -1,
            log_prob=chain[3] if explore else np.zeros(shape, np.float32),
            std=0.5 if explore else 0.0,
            noise_level=0.7 if explore else 0.0,
            value=float("nan"),
            seed=seed,
        )

    def sample_batch(self, asks: Sequence[PolicyRequest]) -> list[PolicySample | ValueError]:
        self.before()
        time.sleep(self.delay_s)
        self.batches.append(list(asks))
        return one_by_one(self, asks)


@pytest.fixture(scope="session")
def make_policy() -> type[NamedPolicy]:
    return NamedPolicy


@pytest.fixture
def contract() -> Contract:
    return CONTRACT


@pytest.fixture
def observe() -> Callable[[int], Observation]:
    def make(seed: int) -> Observation:
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
        return Observation({"wrist": image}, rng.normal(size=3).astype(np.float32), INSTRUCTION, "arm-1", 1000 + seed)

    return make


@dataclass
class Service:
    """A policy service on a real socket."""

    engine: Engine
    recorder: Recorder
    store: EpisodeStore
    attendance: RobotConnections
    port: int
    clients: list[PolicyClient] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connect(self, robot_id: str = "arm-1", timeout_s: float = 20.0, mode: str = "") -> PolicyClient:
        client = PolicyClient(self.address, robot_id, timeout_s=timeout_s, mode=mode)  # type: ignore[arg-type]
        client.info()
        self.clients.append(client)
        return client


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    engine, store = Engine(queue_size=4), EpisodeStore(tmp_path / "store")
    engine.swap(NamedPolicy())
    recorder = Recorder(store)
    serving = PolicyService(engine, recorder, explore=True)
    server, port = start_grpc(serving, "127.0.0.1:0")
    running = Service(engine, recorder, store, serving.attendance, port)
    yield running
    for client in running.clients:
        client.close()
    server.stop(None).wait()
    engine.close()
    recorder.close()


@pytest.fixture
def world(
    tmp_path: Path, contract: Contract, make_policy: Any, observe: Callable[[int], Observation]
) -> Iterator[World]:
    """Three versions, v1 in production."""
    made = World(registry_of(tmp_path, contract, 3), make_policy, observe)
    made.start()
    yield made
    made.engine.close()


@pytest.fixture
def server(tmp_path: Path, make_policy: Any) -> Iterator[Server]:
    """Of gRPC and REST, whole but for its policy."""
    made = Server(tmp_path, make_policy())
    yield made
    made.close()


@pytest.fixture
def store(server: Server) -> EpisodeStore:
    """The server's."""
    found: EpisodeStore = server.api.state.services.episodes
    return found


@pytest.fixture
def web(server: Server) -> Iterator[httpx.Client]:
    """An operator's."""
    with server.web(server.tokens.create("ada", ["operator"])) as client:
        yield client


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield made
    made.close()


@pytest.fixture
def browser(one_browser: Browser) -> Browser:
    """Desktop, by day, with an empty log."""
    one_browser.shape(1280, 860)
    one_browser.requested.clear()
    one_browser.errors.clear()
    return one_browser
