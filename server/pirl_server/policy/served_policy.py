"""Result of one policy inference, and the ServedPolicy protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, Observation, PreviousChunk

Array = NDArray[np.float32]
BATCH_SIZES = (1, 2, 4, 8, 16)
"""row counts that a policy is warmed up at; the last is the most rows of one pass"""


@dataclass(frozen=True)
class PolicySample:
    """One chunk and its denoising chain. H horizon, D the contract's actions, A >= D the model's, K denoise steps."""

    actions: Array
    """[H, D] float32 in the units of `Contract.action`; not clipped: the executor clips and says so"""
    chain: Array
    """[K+1, H, A] float32, model space (normalised actions): chain[0], at t = 1, is the noise, chain[K] the action"""
    sde_index: int
    """which of the K steps was stochastic (hybrid Flow-SDE); -1: none, so there is no density to learn from"""
    log_prob: Array
    """[H, A] float32, density of chain[sde_index+1] given chain[sde_index]; zeros when sde_index is -1"""
    std: float
    """standard deviation of that one transition; 0 when sde_index is -1"""
    noise_level: float
    """a of sigma = a sqrt(t / (1 - t)); 0 when deterministic"""
    value: float
    """the critic's value of the observation; NaN when the checkpoint has no critic"""
    seed: int
    continued: int = 0
    """this many leading actions are those of the `PreviousChunk` that was asked with, unchanged"""
    altered: int = 0
    """this many leading actions were drawn otherwise than by the policy alone: no PPO may learn from their density"""


@dataclass(frozen=True)
class PolicyRequest:
    """One draw that is wanted."""

    observation: Observation
    explore: bool
    seed: int
    continuation: PreviousChunk | None = None
    """None: a chunk without RTC"""


class ServedPolicy(Protocol):
    """A loaded checkpoint as the service sees it. `sample` is called by the one thread that owns the device."""

    @property
    def version(self) -> str:
        """Content hash of the checkpoint."""

    @property
    def name(self) -> str:
        """Human name from the model card."""

    @property
    def contract(self) -> Contract:
        """The robot this policy was trained for."""

    @property
    def horizon(self) -> int:
        """H."""

    @property
    def execute_horizon(self) -> int:
        """How many of the H actions a robot plays before it asks again."""

    @property
    def instructions(self) -> tuple[str, ...]:
        """Sentences the policy was trained on."""

    @property
    def continuations(self) -> tuple[str, ...]:
        """Values of `PreviousChunk.method` that it supports; none: no real-time chunking."""

    def sample(self, observation: Observation, *, explore: bool, seed: int) -> PolicySample:
        """Draw one chunk. Raises ValueError, naming the fault, when the observation does not fit the contract."""

    def sample_batch(self, asks: Sequence[PolicyRequest]) -> list[PolicySample | ValueError]:
        """Draw one chunk per ask, in order; an ask that can't be answered leaves its ValueError in its place.

        A row is what it would be alone: neither its noise nor its numbers (within float32 rounding) depend on the
        others. Called by the thread that owns the device, with at most `BATCH_SIZES[-1]` asks.
        """


def one_by_one(policy: ServedPolicy, asks: Sequence[PolicyRequest]) -> list[PolicySample | ValueError]:
    """Return `sample_batch` by `sample`, for a policy that gains nothing by batches; it knows no continuation."""
    return [_alone(policy, ask) for ask in asks]


def _alone(policy: ServedPolicy, ask: PolicyRequest) -> PolicySample | ValueError:
    if ask.continuation is not None:
        return ValueError(f"policy {policy.version} does not support real-time chunking: send no continuation")
    try:
        return policy.sample(ask.observation, explore=ask.explore, seed=ask.seed)
    except ValueError as error:
        return error
