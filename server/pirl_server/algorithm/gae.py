"""Generalised advantage estimation over decisions (Schulman et al., arXiv 1506.02438).

Shape letters: T decisions in time order, N environments or episodes side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward_TN: Tensor,
    value_TN: Tensor,
    last_value_N: Tensor,
    terminated_TN: Tensor,
    truncated_TN: Tensor,
    final_value_TN: Tensor,
    valid_TN: Tensor,
    *,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (advantage + value), each [T, N]; both discounts are per decision.

    `last_value` is the value of the observation after row T-1, used where the episode continues. `terminated`: the task
    ended by itself, the value after it is 0. `truncated`: a time limit or a stop cut it, the value after it is
    `final_value` (read only there). Rows that are not `valid` are skipped as if they had been cut out, and give 0.
    """
    advantage_TN = torch.zeros_like(reward_TN)
    carry_N, next_value_N = torch.zeros_like(last_value_N), last_value_N
    for t in reversed(range(len(reward_TN))):
        ended_N = terminated_TN[t] | truncated_TN[t]
        after_N = torch.where(truncated_TN[t], final_value_TN[t], next_value_N)
        after_N = torch.where(terminated_TN[t], torch.zeros_like(after_N), after_N)
        delta_N = reward_TN[t] + gamma * after_N - value_TN[t]
        here_N = torch.where(ended_N, delta_N, delta_N + gamma * lam * carry_N)
        carry_N = torch.where(valid_TN[t], here_N, carry_N)
        next_value_N = torch.where(valid_TN[t], value_TN[t], next_value_N)
        advantage_TN[t] = torch.where(valid_TN[t], here_N, torch.zeros_like(here_N))
    return advantage_TN, advantage_TN + torch.where(valid_TN, value_TN, torch.zeros_like(value_TN))
