"""The seam between the loop over logged episodes and what is learnt from them: a new method is one file beside this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.progress import Progress
from pirl_server.training.supervised.flow_matching import DataT, Minibatch


class Method(Protocol[DataT]):
    """One way to learn from episodes. The loop encodes prefixes, steps the optimiser, reports and saves."""

    @property
    def name(self) -> str:
        """As the checkpoint's lineage records it."""

    def prepare(self, episodes: Sequence[Episode]) -> DataT:
        """Training samples with all columns that `loss` needs; called once.

        Every episode is labelled, of the policy's contract and has decisions that reached an arm. Raises ValueError
        when there is nothing to learn from them.
        """

    def loss(self, batch: Minibatch[DataT]) -> Tensor:
        """Loss of a minibatch, a scalar [] with a gradient."""


MakeMethod = Callable[[FlowPolicy, EpisodesConfig, int, Progress], Method[Any]]
"""the policy that learns, the job's config, its seed, where numbers are reported -> the method"""
