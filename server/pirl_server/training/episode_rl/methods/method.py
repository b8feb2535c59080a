"""The seam between the job over logged episodes and what is learnt from them: a new method is one file beside this.

`prepare` turns episodes into data, `train` owns the optimiser loop. Flow-matching methods inherit the loop of
`FlowMatchingMethod` and write a loss; one that updates otherwise (PPO, an actor over the noise) writes its own `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.checkpoint import StateDict
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.training.progress import Progress
from pirl_server.training.supervised import flow_matching
from pirl_server.training.supervised.flow_matching import DataT, Minibatch, fit
from pirl_server.training.train_state import TrainStateFolder

PreparedT = TypeVar("PreparedT")
Archive = Callable[[str], Path | None]
"""version of a checkpoint -> its folder; None where it is not kept"""


def no_archive(version: str) -> Path | None:
    """Of a run beside any registry: the base alone is known."""
    return None


@dataclass(frozen=True)
class Run:
    """What a method is made from."""

    policy: FlowPolicy
    """the base, which `train` changes in place"""
    config: EpisodesConfig
    seed: int
    progress: Progress
    """where numbers are reported"""
    archive: Archive = no_archive


@dataclass(frozen=True)
class Trained:
    """What is saved besides the policy's weights."""

    card: ModelCard
    """without its lineage, which the job writes"""
    noise_actor: StateDict | None = None
    """what chooses the initial noise of served chunks; None: nothing does, whatever the base had"""
    lineage: Mapping[str, str] = field(default_factory=dict)
    """what the lineage records of this method besides its name and the config"""


class Method(Protocol[PreparedT]):
    """One way to learn from episodes. The job chooses the episodes and saves the result."""

    @property
    def name(self) -> str:
        """As the checkpoint's lineage records it."""

    @property
    def unlabelled(self) -> bool:
        """Whether episodes without a label teach it too."""

    def prepare(self, episodes: Sequence[Episode]) -> PreparedT:
        """What `train` reads; called once, before anything learns.

        Every episode is labelled, unless `unlabelled`, of the policy's contract, and has steps that reached an arm.
        Raises ValueError when there is nothing to learn from them.
        """

    def train(self, data: PreparedT, states: TrainStateFolder | None) -> Trained:
        """Change the policy in place. A run that finds its state in `states` continues from there.

        Stops early, with what it has, when `Run.progress` is cancelled.
        """


class FlowMatchingMethod(Generic[DataT]):
    """A `Method` by its `prepare` and a loss: the loop encodes prefixes, steps the optimiser and reports."""

    unlabelled = False

    def __init__(self, run: Run) -> None:
        self.policy, self.config, self.seed, self.progress = run.policy, run.config, run.seed, run.progress

    def loss(self, batch: Minibatch[DataT]) -> Tensor:
        """Flow matching's error by the windows' weights, a scalar [] with a gradient."""
        delay = self.config.prefix_delay
        return flow_matching.loss(self.policy, batch.data, batch.rows, batch.prefix, batch.generator, delay)

    def train(self, data: DataT, states: TrainStateFolder | None) -> Trained:
        """Minimise `loss`; see `Method.train`."""
        fit(self.policy, data, self.config, self.seed, self.progress, self.loss, states)
        return Trained(replace(self.policy.card, prefix_delay=self.config.prefix_delay))


MakeMethod = Callable[[Run], Method[Any]]
