"""Our service as it is deployed (engine, recorder, gRPC, openpi's port) around a policy that costs what it is told."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from bare_stream import serve_bytes
from payloads import ACTION_DIM, ALL, HORIZON, INSTRUCTION, STATE_DIM
from stations import Stamps
from worker import work

from pirl_contract import Camera, Contract, Field, Observation
from pirl_server import malloc
from pirl_server.episodes.store import EpisodeStore
from pirl_server.openpi_wire.server import start_openpi
from pirl_server.policy.served_policy import PolicyRequest, PolicySample
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService


def contract_of(payload: str) -> Contract:
    """The contract of a robot that sends this payload."""
    sizes = ALL[payload]
    cameras = tuple(Camera(name, sizes.height, sizes.width) for name in sizes.images())
    state = tuple(Field(f"q{i}", "rad") for i in range(STATE_DIM))
    return Contract("bench", cameras, state, tuple(Field(f"a{i}", "rad") for i in range(ACTION_DIM)), 50.0)


@dataclass(frozen=True)
class TimedPolicy:
    """The same number everywhere after `model_ms`, however many rows: a device that is far from full."""

    contract: Contract
    model_ms: float
    number: int = 0
    name: str = "numbers"
    horizon: int = HORIZON
    execute_horizon: int = HORIZON
    instructions: tuple[str, ...] = (INSTRUCTION,)
    continuations: tuple[Literal["guided", "prefix"], ...] = ()

    @property
    def version(self) -> str:
        return f"number-{self.number}"

    def sample(self, observation: Observation, *, explore: bool, seed: int) -> PolicySample:
        (sample,) = self.sample_batch([PolicyRequest(observation, explore, seed)])
        return sample

    def sample_batch(self, asks: Sequence[PolicyRequest]) -> list[Any]:
        if self.model_ms:
            time.sleep(self.model_ms / 1e3)
        return [_numbers(self.number, ask) for ask in asks]


def _numbers(number: int, ask: PolicyRequest) -> PolicySample:
    chain = np.full((2, HORIZON, ACTION_DIM), number, np.float32)
    return PolicySample(chain[1], chain, -1, chain[0], 0.0, 0.0, float("nan"), ask.seed)


class Servers:
    """Every opened service stays up: idle, it costs nothing."""

    def __init__(self) -> None:
        self._store = EpisodeStore(Path(tempfile.mkdtemp(dir=".")))
        self._open: list[Any] = []
        self._engine: Engine | None = None
        self._policy: TimedPolicy | None = None

    def open(self, payload: str, model_ms: float) -> dict[str, int]:
        """Start one service; returns its gRPC port, its openpi port and that of a stream that does nothing."""
        engine, policy = Engine(), TimedPolicy(contract_of(payload), model_ms)
        engine.swap(policy)
        service = PolicyService(engine, Recorder(self._store), explore=False)
        server, port = start_grpc(service, "127.0.0.1:0")
        openpi = start_openpi(service.dispatcher, "127.0.0.1", 0)
        bare, bare_port = serve_bytes()
        self._open += [server, openpi, bare]
        self._engine, self._policy = engine, policy
        return {"port": port, "openpi_port": openpi.port, "bare_port": bare_port}

    def swap(self) -> None:
        """Serve the next version in the service that was opened last."""
        assert self._engine is not None
        assert self._policy is not None
        self._policy = replace(self._policy, number=self._policy.number + 1)
        self._engine.swap(self._policy)


if __name__ == "__main__":
    malloc.tune()
    logging.basicConfig(level=logging.WARNING)
    servers, stamps = Servers(), Stamps()
    work({"open": servers.open, "swap": servers.swap, "stamp": stamps.server, "stamps": stamps.take})
