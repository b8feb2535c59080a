"""The real policy service around a policy that costs nothing: circles of the tool, at once or after a wait.

python policy_server.py PROFILE PORT ACTIONS [WAIT_MS]        prints "ready"; ends with its standard input
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pirl_contract import Contract, Observation
from pirl_ros.profile.profile import load_profile
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.served_policy import PolicyRequest, PolicySample, one_by_one
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

RADIUS_M, TURN_S = 0.03, 2.0


@dataclass
class CirclePolicy:
    """Answers with the next `horizon` steps of a circle in x and y."""

    contract: Contract
    horizon: int
    wait_ms: float
    version: str = "circle"
    name: str = "circle"
    instructions: tuple[str, ...] = ("draw circles",)
    continuations: tuple[Literal["guided", "prefix"], ...] = ()
    _drawn: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def execute_horizon(self) -> int:
        return self.horizon

    def sample(self, observation: Observation, *, explore: bool, seed: int) -> PolicySample:
        time.sleep(self.wait_ms / 1e3)
        dt_s, first = 1.0 / self.contract.rate_hz, next(self._drawn) * self.horizon
        angle = 2 * np.pi * (first + np.arange(self.horizon)) * dt_s / TURN_S
        speed, still = RADIUS_M * 2 * np.pi / TURN_S * dt_s, np.zeros_like(angle)
        actions = np.stack([speed * np.cos(angle), speed * np.sin(angle), still, still + 1.0], axis=1)
        chain = np.stack([actions, actions]).astype(np.float32)
        return PolicySample(chain[1], chain, -1, np.zeros_like(chain[0]), 0.0, 0.0, float("nan"), seed)

    def sample_batch(self, asks: Sequence[PolicyRequest]) -> list[Any]:
        return one_by_one(self, asks)


def main() -> None:
    profile, port, actions = sys.argv[1:4]
    wait_ms = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine()
        engine.swap(CirclePolicy(load_profile(profile).contract, int(actions), wait_ms))
        recorder = Recorder(EpisodeStore(Path(folder)))
        server, _ = start_grpc(PolicyService(engine, recorder, explore=False), f"127.0.0.1:{port}")
        print("ready", flush=True)
        sys.stdin.read()
        server.stop(None)
        recorder.close()
        engine.close()


if __name__ == "__main__":
    main()
