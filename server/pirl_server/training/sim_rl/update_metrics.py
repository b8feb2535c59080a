"""Metrics of an update by name, averaged over its minibatches.

Shape letters: B decisions, K denoise steps, H horizon, D action dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pirl_server.algorithm.joint import Reduction, true_clip_range
from pirl_server.algorithm.metrics import (
    entropy_per_step_and_dimension,
    kl_k1,
    kl_k2,
    std_of_drawn_steps,
    std_per_step_and_dimension,
)
from pirl_server.config.training import PpoConfig

Numbers = dict[str, float]
LAST = ("approx_kl", "kl_k1", "kl_k2", "clip_fraction", "ess")
"""how far an update went is said by its last minibatch, everything else by the mean over them"""

OF_NOISE = ("sigma_k", "entropy_k")


def divergence(log_ratio: Tensor, valid: Tensor) -> Numbers:
    """The estimates of KL(old || new) beside the one that stops an update. Both arrays have the same, any shape."""
    return {"kl_k1": float(kl_k1(log_ratio, valid)), "kl_k2": float(kl_k2(log_ratio, valid))}


def exploration(std: Tensor, index_B: Tensor, steps: int, action_dim: int) -> Numbers:
    """Noise's standard deviation and entropy by step and dimension; a step without samples or noise is left out.

    `std` is [B, H, D] of the drawn step or [B, K, H, D] of each.
    """
    real = std.detach()[..., :action_dim]
    if real.ndim == 3:
        std_KD = std_of_drawn_steps(real, index_B, steps)
        entropy_KD = entropy_per_step_and_dimension(std_KD[None, :, None])
    else:
        std_KD, entropy_KD = std_per_step_and_dimension(real), entropy_per_step_and_dimension(real)
    named = {f"sigma_k{k}_d{d}": float(std_KD[k, d]) for k in range(steps) for d in range(action_dim)}
    named |= {f"entropy_k{k}_d{d}": float(entropy_KD[k, d]) for k in range(steps) for d in range(action_dim)}
    return {name: value for name, value in named.items() if math.isfinite(value)}


def clip_range(config: PpoConfig, steps: int) -> Numbers:
    """Bounds that the clip puts on the true ratio, which depend on how densities are reduced."""
    reduction: Reduction = "mean_steps" if config.reduction == "mean_steps" else "sum"
    low, high = true_clip_range(config.clip, config.clip_high or config.clip, steps, reduction)
    return {"true_clip_low": low, "true_clip_high": high}


def summary(seen: Sequence[Numbers]) -> Numbers:
    """First minibatch's ratio and noise, last one's divergence and clip fraction, mean of the rest."""
    acted = [numbers for numbers in seen if "approx_kl" in numbers]
    found: Numbers = {}
    if acted:
        found["first_log_ratio"] = acted[0]["max_log_ratio"]
        found["actor_steps"] = float(sum("actor_grad_norm" in numbers for numbers in acted))
        found |= {name: value for name, value in acted[0].items() if name.startswith(OF_NOISE)}
        found |= {name: acted[-1][name] for name in LAST}
    rest = {name for numbers in seen for name in numbers if not name.startswith(OF_NOISE)}
    for name in sorted(rest - {"max_log_ratio", *LAST}):
        values = [numbers[name] for numbers in seen if name in numbers]
        found[name] = float(np.mean(values))
    return found


def everyone(like: Tensor) -> Tensor:
    """All entries are valid: what is not has been left out. Any shape."""
    return torch.ones_like(like, dtype=torch.bool)
