"""A `RolloutPool` in this process: no worker, no pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from torch import Tensor

from pirl_contract.protocols import MakeEnv
from pirl_server.config.training import PpoConfig
from pirl_server.training.rollout.actor import load_weights, set_up
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector
from pirl_server.training.rollout.explorer import Explorer


class LocalPool:
    def __init__(self, make_env: MakeEnv, checkpoint: Path, max_steps: int, *, config: PpoConfig, seed: int) -> None:
        policy, net = set_up(checkpoint, config)
        self.explorer = Explorer(policy, config, net)
        self.collector = Collector(make_env, policy, config.envs, count(seed), max_steps, explorer=self.explorer)

    def collect(self, weights: Mapping[str, Tensor], amount: int, noise_level: float, version: int) -> DecisionBatch:
        policy = self.explorer.policy
        policy.card = replace(policy.card, noise_level=noise_level)
        load_weights(self.explorer, weights)
        self.collector.policy_version = version
        return self.collector.collect(amount)

    def close(self) -> None:
        self.collector.close()
