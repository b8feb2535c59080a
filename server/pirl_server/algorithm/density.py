"""Gaussian densities of denoise steps, element by element, and their sum over what was executed.

Shape letters: B batch, H horizon, D action dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def log_prob(x_BHD: Tensor, mean_BHD: Tensor, std: Tensor) -> Tensor:
    """Elementwise log N(x; mean, std^2) [B, H, D]. Where std is 0 exactly 0, with finite gradients."""
    noisy = std > 0
    safe_std = torch.where(noisy, std, torch.ones_like(std))
    z_BHD = (x_BHD - mean_BHD) / safe_std
    return torch.where(noisy, -0.5 * z_BHD**2 - torch.log(safe_std) - HALF_LOG_TWO_PI, torch.zeros_like(z_BHD))


def entropy(std: Tensor) -> Tensor:
    """Elementwise entropy of N(., std^2): 0.5 ln(2 pi e std^2). std > 0."""
    return 0.5 + HALF_LOG_TWO_PI + torch.log(std)


def executed_mask(executed_B: Tensor, horizon: int) -> Tensor:
    """Which steps of a chunk were played [B, H] bool: the first `executed`."""
    return torch.arange(horizon, device=executed_B.device) < executed_B[:, None]


def sum_executed(log_prob_BHD: Tensor, executed_B: Tensor, action_dim: int) -> Tensor:
    """Log-density [B] of the executed part: the first `executed` steps and the first `action_dim` (real) dimensions.

    Entries that were sampled but not played, or that pad the action, are left out of the policy ratio: a partial
    likelihood, as in pi_RL.
    """
    played_BH1 = executed_mask(executed_B, log_prob_BHD.shape[1])[..., None]
    return (log_prob_BHD[..., :action_dim] * played_BH1).sum(dim=(1, 2))


def sum_dims(log_prob_BHD: Tensor, action_dim: int) -> Tensor:
    """Log-density [B, H] of each control step over its real dimensions: the step level, one ratio per step."""
    return log_prob_BHD[..., :action_dim].sum(dim=2)
