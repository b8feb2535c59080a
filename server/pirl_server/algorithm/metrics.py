"""Health metrics of an update, without gradients.

Shape letters: B decisions, K denoise steps, H horizon, D action dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pirl_server.algorithm.density import entropy


def masked_mean(x_B: Tensor, valid_B: Tensor) -> Tensor:
    """Mean over the valid entries, 0 when there are none. Returns a scalar."""
    valid_B = valid_B.to(x_B.dtype)
    return (x_B * valid_B).sum() / valid_B.sum().clamp(min=1.0)


def kl_k1(log_ratio_B: Tensor, valid_B: Tensor) -> Tensor:
    """KL(old || new) as mean(-log r): unbiased, high variance, may be negative (Schulman, "Approximating KL").

    Returns a scalar.
    """
    return masked_mean(-log_ratio_B, valid_B)


def kl_k2(log_ratio_B: Tensor, valid_B: Tensor) -> Tensor:
    """KL(old || new) as mean((log r)^2 / 2): never negative, biased once policies are far apart. Returns a scalar."""
    return masked_mean(0.5 * log_ratio_B**2, valid_B)


def kl_k3(log_ratio_B: Tensor, valid_B: Tensor) -> Tensor:
    """KL(old || new) as mean(r - 1 - log r): unbiased and never negative. The one that stops an update.

    Returns a scalar.
    """
    return masked_mean(log_ratio_B.exp() - 1.0 - log_ratio_B, valid_B)


def clip_fraction(ratio_B: Tensor, valid_B: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Share of the valid ratios outside [1 - clip_low, 1 + clip_high], whichever sign their advantage has."""
    outside_B = ratio_B != ratio_B.clamp(1.0 - clip_low, 1.0 + clip_high)
    return masked_mean(outside_B.to(ratio_B.dtype), valid_B)


def effective_sample_size(ratio_B: Tensor, valid_B: Tensor) -> Tensor:
    """ESS / N = (sum w)^2 / (N sum w^2): 1 when all weights agree; exp(-2 KL) for equal-variance Gaussians.

    Returns a scalar.
    """
    w_B = ratio_B * valid_B.to(ratio_B.dtype)
    return w_B.sum() ** 2 / (valid_B.sum() * (w_B**2).sum()).clamp(min=torch.finfo(w_B.dtype).tiny)


def explained_variance(value_B: Tensor, return_B: Tensor, valid_B: Tensor) -> Tensor:
    """1 - Var(return - value) / Var(return): 1 perfect, 0 as good as a constant, below 0 worse than one.

    Returns a scalar.
    """

    def variance(x_B: Tensor) -> Tensor:
        return masked_mean((x_B - masked_mean(x_B, valid_B)) ** 2, valid_B)

    return 1.0 - variance(return_B - value_B) / variance(return_B).clamp(min=torch.finfo(return_B.dtype).tiny)


def std_per_step_and_dimension(std_BKHD: Tensor) -> Tensor:
    """Exploration std [K, D], averaged over batch and horizon: whether a step or a joint stopped exploring."""
    return std_BKHD.mean(dim=(0, 2))


def entropy_per_step_and_dimension(std_BKHD: Tensor) -> Tensor:
    """Entropy [K, D] of each step's Gaussian, averaged over batch and horizon. -inf where the std is 0."""
    return entropy(std_BKHD).mean(dim=(0, 2))


def std_of_drawn_steps(std_BHD: Tensor, index_B: Tensor, steps: int) -> Tensor:
    """Hybrid sampling's std [K, D], each step over the decisions that drew it; NaN for a step without samples."""
    rows = [std_BHD[index_B == k].mean(dim=(0, 1)) for k in range(steps)]
    return torch.stack(rows)
