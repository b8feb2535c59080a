"""Advantage-conditioned flow matching: training on any logged episode, without densities (RECAP, arXiv 2511.14759).

The network gets as input whether an action was better than usual, trained by plain flow matching, and conditioned on
better ones.

Shape letters: M decisions of all episodes, B of a minibatch or of a task.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lookahead_advantage(reward_M: Tensor, value_M: Tensor, then_M: Tensor) -> Tensor:
    """A [M] = rewards until the decision looked ahead to + V there - V here, undiscounted.

    `then_M` is the number of that decision, and `reward_M` are the rewards until it; -1 where the end comes first: then
    `reward_M` are those to the end, after which the value is 0.
    """
    return reward_M + torch.where(then_M >= 0, value_M[then_M], torch.zeros_like(value_M)) - value_M


def better_than_usual(advantage_B: Tensor, human_B: Tensor, positive: float) -> Tensor:
    """Indicator [B] bool: advantage above 0, and above the quantile that leaves `positive` of the policy's decisions.

    Where fewer did better than their value, fewer are good: the quantile alone would call the least bad of the failures
    good, and the policy would be asked for them. What a human did (takeovers, corrections) is always positive and has
    no part in the quantile. One task at a time.
    """
    own_B = advantage_B[~human_B]
    if len(own_B) == 0:
        return human_B
    return human_B | (advantage_B > torch.quantile(own_B, 1.0 - positive).clamp(min=0.0))


def keep_condition(batch: int, dropout: float, generator: torch.Generator) -> Tensor:
    """Which samples get their indicator [B] bool; the others train the unconditional branch of guidance."""
    return torch.rand(batch, generator=generator, device=generator.device) >= dropout
