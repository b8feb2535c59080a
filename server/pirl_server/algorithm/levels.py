"""Rewards and values at chunk level and at step level, and the inner MDP's: which rows `gae` walks over.

At chunk level a decision is one row. At step level each of its S inner steps is: control steps of the executed chunk,
or denoise steps of the chain (the two-layer MDP). Inner steps follow each other in time, so rows are [T * S, N].

Shape letters: T decisions, N environments, S inner steps of a decision, R = T * S rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_rows(x_TNS: Tensor) -> Tensor:
    """Inner steps as rows of their own, in time order [T * S, N]."""
    return x_TNS.transpose(1, 2).flatten(0, 1)


def from_rows(x_RN: Tensor, inner: int) -> Tensor:
    """Back from `to_rows`: [T, N, S] of R = T * S rows."""
    return x_RN.reshape(-1, inner, x_RN.shape[1]).transpose(1, 2)


def executed_steps(executed_TN: Tensor, inner: int) -> Tensor:
    """Which control steps were played [T, N, S] bool: what a terminated or replanned chunk left out is not valid."""
    return torch.arange(inner, device=executed_TN.device) < executed_TN[..., None]


def chunk_reward(reward_TNS: Tensor, executed_TN: Tensor) -> Tensor:
    """Reward of a decision [T, N]: the undiscounted sum over the steps that were played (pi_RL)."""
    played_TNS = executed_steps(executed_TN, reward_TNS.shape[-1])
    return torch.where(played_TNS, reward_TNS, torch.zeros_like(reward_TNS)).sum(dim=-1)


def at_last_step(x_TN: Tensor, executed_TN: Tensor, inner: int) -> Tensor:
    """Put what is known per decision on its last inner step [T, N, S], 0 or False on the others.

    Ends of episodes at step level; at the denoise level (`executed` = K) the environment's reward, which comes after
    the chain is complete.
    """
    last_TNS = torch.arange(inner, device=x_TN.device) == executed_TN[..., None] - 1
    return torch.where(last_TNS, x_TN[..., None], torch.zeros_like(x_TN[..., None]))
