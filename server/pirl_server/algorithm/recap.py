"""Advantage-conditioned flow matching: training on any logged episode, without densities (RECAP, arXiv 2511.14759).

The network gets as input whether an action was better than usual, trained by plain flow matching, and conditioned on
better ones.

Shape letters: T decisions of an episode, B decisions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lookahead_advantage(reward_T: Tensor, value_T: Tensor, last_value: float, ahead: int) -> Tensor:
    """A [T] = sum of the next `ahead` rewards + V(after them) - V(now), undiscounted.

    `last_value` is the value after the episode: 0 where the task ended, the final observation's where it was cut.
    """
    total_T1 = torch.cat([reward_T.new_zeros(1), reward_T.cumsum(0)])
    value_T1 = torch.cat([value_T, value_T.new_tensor([last_value])])
    now_T = torch.arange(len(reward_T), device=reward_T.device)
    then_T = (now_T + ahead).clamp(max=len(reward_T))
    return total_T1[then_T] - total_T1[now_T] + value_T1[then_T] - value_T


def better_than_usual(advantage_B: Tensor, human_B: Tensor, positive: float) -> Tensor:
    """Indicator [B] bool: advantage above the quantile that leaves the share `positive` of the policy's own decisions.

    What a human did (takeovers, corrections) is always positive and has no part in the quantile. One task at a time.
    """
    own_B = advantage_B[~human_B]
    if len(own_B) == 0:
        return human_B
    return human_B | (advantage_B > torch.quantile(own_B, 1.0 - positive))


def keep_condition(batch: int, dropout: float, generator: torch.Generator) -> Tensor:
    """Which samples get their indicator [B] bool; the others train the unconditional branch of guidance."""
    return torch.rand(batch, generator=generator, device=generator.device) >= dropout
