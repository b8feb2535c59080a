"""Behaviour cloning term beside the policy loss: flow matching on demonstrations, against forgetting.

Shape letters: M windows, B minibatch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pirl_server.config.training import FlowMatchingConfig, PpoConfig
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.supervised import flow_matching


class Imitation:
    """Demonstrations to draw minibatches from, with randomness of their own."""

    def __init__(self, policy: FlowPolicy, windows: ChunkDataset, config: PpoConfig, seed: int) -> None:
        self._policy, self._windows = policy, windows
        self._batch = min(config.minibatch, len(windows))
        self.generator = torch.Generator().manual_seed(seed)
        parts = FlowMatchingConfig(vlm=config.vlm, batch_size=config.prefix_batch)
        self._prefix_of = flow_matching.prefixes(policy, windows, parts, self.generator)

    def loss(self) -> Tensor:
        """Flow-matching error of the next minibatch, a scalar with a gradient."""
        rows = torch.randint(len(self._windows), (self._batch,), generator=self.generator)
        return flow_matching.loss(self._policy, self._windows, rows, self._prefix_of(rows), self.generator)
