"""Off-policy learning over the initial noise of a frozen flow: the action is the noise (DSRL, arXiv 2506.15799).

Shape letters: B decisions, E critics, H horizon, D action dim.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_to_standard(mean_BHD: Tensor, log_std_BHD: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, I)) [B], in nats over all entries of the noise."""
    element = 0.5 * (mean_BHD**2 + torch.exp(2.0 * log_std_BHD) - 1.0) - log_std_BHD
    return element.sum(dim=(1, 2))


def actor_loss(value_EB: Tensor, kl_B: Tensor, kl_weight: float) -> Tensor:
    """-(lowest value - kl_weight KL), a scalar: noise that every critic likes, near what the flow was trained on.

    For a value linear in the noise with slope g the optimum is a mean of g / kl_weight and a deviation of 1.
    """
    return (kl_weight * kl_B - value_EB.amin(dim=0)).mean()


def td_target(reward_B: Tensor, next_value_EB: Tensor, ended_B: Tensor, gamma: float) -> Tensor:
    """r + gamma min Q(next) [B]; after an end the value is 0."""
    after_B = torch.where(ended_B, torch.zeros_like(reward_B), next_value_EB.amin(dim=0))
    return reward_B + gamma * after_B


def td_loss(value_EB: Tensor, target_B: Tensor) -> Tensor:
    """Mean squared error of each critic, summed over them: a scalar."""
    return ((value_EB - target_B.detach()) ** 2).mean(dim=1).sum()
