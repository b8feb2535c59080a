"""A served policy in this process as a `pirl_contract.Policy`: for evaluation and tests, no socket."""

from __future__ import annotations

import itertools
import uuid

from pirl_contract import ActionChunk, Observation
from pirl_server.policy.served_policy import ServedPolicy


class LocalPolicy:
    """Draws deterministically (ODE); noise seeds count up from `seed`, so a rollout can be repeated exactly."""

    def __init__(self, policy: ServedPolicy, seed: int) -> None:
        self._policy = policy
        self._seeds = itertools.count(seed)

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the chunk; see `pirl_contract.Policy`."""
        sample = self._policy.sample(observation, explore=False, seed=next(self._seeds))
        return ActionChunk(
            actions=sample.actions,
            dt_s=1.0 / self._policy.contract.rate_hz,
            chunk_id=uuid.uuid4().hex,
            policy_version=self._policy.version,
            seed=sample.seed,
            execute_horizon=self._policy.execute_horizon,
            start_time_ns=observation.capture_time_ns,
        )

    def reset(self) -> None:
        """Nothing is kept between episodes."""
