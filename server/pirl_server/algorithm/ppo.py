"""The clipped policy loss, the value loss and what an update minimises in all.

Shape letters: B decisions of a minibatch (or any shape of ratios, as of decisions and denoise steps).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from pirl_server.algorithm.metrics import clip_fraction, effective_sample_size, explained_variance, kl_k3, masked_mean


def surrogate(
    ratio_B: Tensor, advantage_B: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> Tensor:
    """Clipped surrogate max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), elementwise (arXiv 1707.06347).

    `dual_clip` c > 1 bounds it by c |A| where A < 0: one bad decision whose ratio exploded can't own the batch
    (arXiv 1912.09729). The two sides of the clip may differ ("clip-higher" keeps rare good decisions learning).
    """
    loss_B = torch.maximum(-advantage_B * ratio_B, -advantage_B * ratio_B.clamp(1.0 - clip_low, 1.0 + clip_high))
    if dual_clip is None:
        return loss_B
    return torch.where(advantage_B < 0, torch.minimum(loss_B, -dual_clip * advantage_B), loss_B)


def policy_loss(
    log_prob_B: Tensor,
    old_log_prob_B: Tensor,
    advantage_B: Tensor,
    valid_B: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean `surrogate` over valid decisions, and how the update does.

    Decisions whose executed action is not the sampled one must not be `valid`. Metrics are detached scalars:
    approx_kl is the k3 estimate, never negative; max_log_ratio is 0 before the first step.
    """
    log_ratio_B = log_prob_B - old_log_prob_B
    ratio_B = log_ratio_B.exp()
    loss_B = surrogate(ratio_B, advantage_B, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    with torch.no_grad():
        metrics = {
            "approx_kl": kl_k3(log_ratio_B, valid_B),
            "clip_fraction": clip_fraction(ratio_B, valid_B, clip_low, clip_high),
            "ess": effective_sample_size(ratio_B, valid_B),
            "max_log_ratio": (log_ratio_B * valid_B.to(ratio_B.dtype)).abs().max(),
        }
    return masked_mean(loss_B, valid_B), metrics


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

    pi_RL uses clip 0.2 and huber_delta 10; plain squared error is the default. The metric is explained variance. Both
    are scalars.
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


def objective(
    policy: Tensor, value: Tensor, entropy: Tensor, imitation: Tensor, *, value_weight: float, entropy_weight: float,
    imitation_weight: float,
) -> Tensor:  # fmt: skip
    """What is minimised: policy + c_v value - c_e entropy + c_bc imitation, all scalars.

    pi_RL: c_v 1, c_e 0.005 for Flow-Noise and 0 for Flow-SDE (whose noise has nothing to learn). The imitation term is
    flow matching on demonstrations and keeps the policy near what it was taught; 0 turns it off.
    """
    return policy + value_weight * value - entropy_weight * entropy + imitation_weight * imitation


def beyond_target(approx_kl: float, target: float) -> bool:
    """Whether an update stops before this step. A KL that is not a number stops it too."""
    return not approx_kl <= target
