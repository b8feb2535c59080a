"""Progress from the order of observations alone: which of two came first, judged by the worst of an ensemble.

A policy that approaches a goal passes through states in an order; a classifier that recognises the order of two
observations recognises progress, without a reward or a label. Where there is no order, no progress was made. The
minimum over an ensemble keeps one member's guess on an unknown state from being taken for progress (as in RLinf's
STEAM).

Shape letters: B pairs, E members of the ensemble.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def order_loss(logit_B: Tensor, forward_B: Tensor) -> Tensor:
    """Mean cross-entropy of "the second observation came later", a scalar.

    Its minimum is the log-likelihood ratio of the two orders: 2 m (y - x) / s^2 for a walk with drift m and variance
    s^2 per step, whatever the number of steps between.
    """
    return binary_cross_entropy_with_logits(logit_B, forward_B.to(logit_B.dtype))


def worst_progress(logit_EB: Tensor) -> Tensor:
    """Progress [B] in -1..1: the lowest of the members' P(forward) - P(backward)."""
    return torch.tanh(0.5 * logit_EB).amin(dim=0)
