"""PPO on decisions of an older policy: the clip's anchor and the behaviour are two policies (arXiv 2110.00641).

Shape letters: B decisions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pirl_server.algorithm.metrics import effective_sample_size, kl_k3, masked_mean
from pirl_server.algorithm.ppo import surrogate


def decoupled_policy_loss(
    log_prob_B: Tensor,
    proximal_log_prob_B: Tensor,
    behaviour_log_prob_B: Tensor,
    advantage_B: Tensor,
    valid_B: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    max_weight: float = 2.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of w * surrogate(r, A): r = new / proximal, w = min(proximal / behaviour, max_weight) without a gradient.

    The proximal policy is the learner's at the start of the job. Equal to PPO's loss when it also acted. Weights are
    truncated, not dropped; metrics say how many and what effective sample size is left: gate on both, for per-decision
    weights do not correct which states were visited. Loss and metrics are scalars.
    """
    raw_B = (proximal_log_prob_B - behaviour_log_prob_B).detach().exp()
    weight_B = raw_B.clamp(max=max_weight)
    log_ratio_B = log_prob_B - proximal_log_prob_B
    loss_B = surrogate(log_ratio_B.exp(), advantage_B, clip_low=clip_low, clip_high=clip_high)
    with torch.no_grad():
        metrics = {
            "approx_kl": kl_k3(log_ratio_B, valid_B),
            "behaviour_ess": effective_sample_size(raw_B, valid_B),
            "truncated_fraction": masked_mean((raw_B > max_weight).to(raw_B.dtype), valid_B),
        }
    return masked_mean(weight_B * loss_B, valid_B), metrics
