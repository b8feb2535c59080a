"""The clipped policy loss, the value loss and the numbers that tell whether an update is healthy.

Shape letters: B decisions of a minibatch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss


def masked_mean(x_B: Tensor, valid_B: Tensor) -> Tensor:
    """Mean over the valid entries, 0 when there are none."""
    valid_B = valid_B.to(x_B.dtype)
    return (x_B * valid_B).sum() / valid_B.sum().clamp(min=1.0)


def effective_sample_size(ratio_B: Tensor, valid_B: Tensor) -> Tensor:
    """ESS / N = (sum w)^2 / (N sum w^2): 1 when all weights agree; exp(-2 KL) for equal-variance Gaussians."""
    w_B = ratio_B * valid_B.to(ratio_B.dtype)
    return w_B.sum() ** 2 / (valid_B.sum() * (w_B**2).sum()).clamp(min=torch.finfo(w_B.dtype).tiny)


def policy_loss(
    log_prob_B: Tensor,
    old_log_prob_B: Tensor,
    advantage_B: Tensor,
    valid_B: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)) over valid decisions.

    Decisions whose executed action is not the sampled one must not be `valid`. Metrics are detached scalars:
    approx_kl is the k3 estimate mean(r - 1 - log r), never negative; max_log_ratio is 0 before the first step.
    """
    log_ratio_B = log_prob_B - old_log_prob_B
    ratio_B = log_ratio_B.exp()
    clipped_B = ratio_B.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = masked_mean(torch.maximum(-advantage_B * ratio_B, -advantage_B * clipped_B), valid_B)
    with torch.no_grad():
        metrics = {
            "approx_kl": masked_mean(ratio_B - 1.0 - log_ratio_B, valid_B),
            "clip_fraction": masked_mean((ratio_B != clipped_B).to(ratio_B.dtype), valid_B),
            "ess": effective_sample_size(ratio_B, valid_B),
            "max_log_ratio": (log_ratio_B * valid_B.to(ratio_B.dtype)).abs().max(),
        }
    return loss, metrics


def value_loss(
    value_B: Tensor,
    return_B: Tensor,
    old_value_B: Tensor,
    valid_B: Tensor,
    *,
    clip: float | None = None,
    huber_delta: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the squared error of the value, or its Huber form; with `clip`, the worse of it and of a clipped move.

    pi_RL uses clip 0.2 and huber_delta 10; plain squared error is the default. The metric is explained variance.
    """

    def error(prediction_B: Tensor) -> Tensor:
        if huber_delta is None:
            return 0.5 * (prediction_B - return_B) ** 2
        return huber_loss(prediction_B, return_B, reduction="none", delta=huber_delta)

    error_B = error(value_B)
    if clip is not None:
        error_B = torch.maximum(error_B, error(old_value_B + (value_B - old_value_B).clamp(-clip, clip)))
    metrics = {"explained_variance": explained_variance(value_B.detach(), return_B, valid_B)}
    return masked_mean(error_B, valid_B), metrics


def explained_variance(value_B: Tensor, return_B: Tensor, valid_B: Tensor) -> Tensor:
    """1 - Var(return - value) / Var(return): 1 perfect, 0 as good as a constant, below 0 worse than one."""

    def variance(x_B: Tensor) -> Tensor:
        return masked_mean((x_B - masked_mean(x_B, valid_B)) ** 2, valid_B)

    return 1.0 - variance(return_B - value_B) / variance(return_B).clamp(min=torch.finfo(return_B.dtype).tiny)
