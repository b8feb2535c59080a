"""The likelihood and the entropy of a whole chain, from its steps (paper Eq. 5), and how steps are reduced.

Shape letters: B batch, K denoise steps, H horizon, D action dim.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pirl_server.algorithm.density import entropy, executed_mask, log_prob

Reduction = Literal["sum", "mean_steps"]
"""How K steps and the initial noise become one log-likelihood: their sum (the paper's Eq. 5, a true density) or their
mean (the paper's released code; the PPO ratio is then the (K+1)-th root of the true one). `docs/adr/0009-reduction.md`
"""


def initial_log_prob(noise_BHD: Tensor) -> Tensor:
    """log N(x; 0, 1) of the chain's start [B, H, D]: cancels in a ratio, belongs to a density."""
    return log_prob(noise_BHD, torch.zeros_like(noise_BHD), torch.ones_like(noise_BHD))


def joint_log_prob(log_prob_BKHD: Tensor, noise_BHD: Tensor, reduction: Reduction) -> Tensor:
    """Elementwise log-likelihood of the chain [B, H, D]: initial noise and K steps, summed or averaged over K + 1."""
    total_BHD = log_prob_BKHD.sum(dim=1) + initial_log_prob(noise_BHD)
    return total_BHD if reduction == "sum" else total_BHD / (log_prob_BKHD.shape[1] + 1)


def joint_entropy(std_BKHD: Tensor, executed_B: Tensor, action_dim: int) -> Tensor:
    """Entropy bonus, a scalar: the mean over K steps, the initial noise, and all executed entries (paper: x 0.005).

    Averaged, so that its weight means the same for every K, H and D.
    """
    first_B1HD = entropy(torch.ones_like(std_BKHD[:, :1]))
    mean_BHD = torch.cat([first_B1HD, entropy(std_BKHD)], dim=1).mean(dim=1)[..., :action_dim]
    played_BHD = executed_mask(executed_B, mean_BHD.shape[1])[..., None].expand_as(mean_BHD)
    return (mean_BHD * played_BHD).sum() / played_BHD.sum().clamp(min=1)


def true_clip_range(clip_low: float, clip_high: float, steps: int, reduction: Reduction) -> tuple[float, float]:
    """Bounds that a clip puts on the true ratio, to be logged: [0.33, 2.49] for 0.2, K = 4 and `mean_steps`."""
    power = 1 if reduction == "sum" else steps + 1
    return (1.0 - clip_low) ** power, (1.0 + clip_high) ** power
