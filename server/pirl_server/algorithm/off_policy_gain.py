"""A lower bound of what a policy gains over the one that acted, from the decisions of the one that acted.

The gain is TRPO's local approximation (arXiv 1502.05477, Eq. 3): first order in the change of the policy, which states
are visited is not corrected for. The bound is by the bootstrap (arXiv 1606.06126).

Shape letters: B decisions, N episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pessimistic_gain(log_weight_B: Tensor, advantage_B: Tensor, max_weight: float) -> Tensor:
    """(w - 1) A of each decision [B], w = new / acted truncated at `max_weight` for good decisions only.

    Its mean is at most the gain E[w A], for any baseline that does not depend on the action. Truncating bad decisions
    too would hide how much more often the new policy takes them.
    """
    weight_B = log_weight_B.exp()
    kept_B = torch.where(advantage_B > 0, weight_B.clamp(max=max_weight), weight_B)
    return (kept_B - 1.0) * advantage_B


def bootstrap_lower_bound(gain_N: Tensor, alpha: float, resamples: int, generator: torch.Generator) -> Tensor:
    """One-sided percentile bound of the mean: below it lie `alpha` of the means of resampled episodes. A scalar."""
    count = len(gain_N)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    return torch.quantile(gain_N[drawn].mean(dim=1), alpha)
