"""The seam between a learner and what makes its rollouts: `WorkerPool` is local processes, a cluster's is one new file.

The learner owns the weights. It passes what has changed with each call and gets decisions that name the weights that
made them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from pirl_contract.protocols import MakeEnv
from pirl_server.config.training import PpoConfig
from pirl_server.training.rollout.batch import DecisionBatch


class RolloutPool(Protocol):
    """Environments whose state continues from one call to the next. One thread calls."""

    def collect(self, weights: Mapping[str, Tensor], amount: int, noise_level: float, version: int) -> DecisionBatch:
        """Take over the weights (a part of the state dict will do), roll out and return the decisions.

        `amount` is decisions of each environment or, in groups, episodes. `version` numbers the weights: the batch
        says in `policy_version_TN` which ones made each decision. Raises RuntimeError when a part of the pool failed.
        """

    def close(self) -> None:
        """Close the environments and end what runs them; may follow a failed `collect`."""


class MakeRolloutPool(Protocol):
    """How a run gets its pool: the class itself will do."""

    def __call__(
        self, make_env: MakeEnv, checkpoint: Path, max_steps: int, *, config: PpoConfig, seed: int
    ) -> RolloutPool:
        """Start `config.envs` environments that act by the checkpoint, with reset seeds from `seed` on."""
