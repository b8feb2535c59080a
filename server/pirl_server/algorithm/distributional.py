"""A value as a distribution over bins: what a critic predicts of an outcome that has two very different ends.

A regression on successes and failures says the middle, which no episode reaches; a distribution says both and how
likely each is (C51, arXiv 1707.06887; bins over the normalised time to success as in RECAP, arXiv 2511.14759).

Shape letters: B decisions, N bins.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bin_centres(count: int, low: float, high: float) -> Tensor:
    """Values [N] that the bins stand for, evenly spaced, both ends included."""
    return torch.linspace(low, high, count)


def two_hot(target_B: Tensor, centre_N: Tensor) -> Tensor:
    """Distribution [B, N] with the target as its mean, on the two bins beside it; targets beyond the ends go there."""
    low, width = centre_N[0], centre_N[1] - centre_N[0]
    place_B = ((target_B - low) / width).clamp(0.0, len(centre_N) - 1.0)
    below_B = place_B.floor().long().clamp(max=len(centre_N) - 2)
    above_B = (place_B - below_B)[:, None]
    found_BN = target_B.new_zeros(len(target_B), len(centre_N))
    found_BN.scatter_(1, below_B[:, None], 1.0 - above_B)
    return found_BN.scatter_add_(1, below_B[:, None] + 1, above_B)


def cross_entropy(logit_BN: Tensor, target_BN: Tensor) -> Tensor:
    """Mean of -sum target log softmax(logit), a scalar; least where the prediction is the target."""
    return -(target_BN * torch.log_softmax(logit_BN, dim=1)).sum(dim=1).mean()


def expected(logit_BN: Tensor, centre_N: Tensor) -> Tensor:
    """Mean [B] of the predicted distribution."""
    return torch.softmax(logit_BN, dim=1) @ centre_N
