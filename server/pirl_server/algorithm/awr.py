"""Advantage-weighted flow matching: training on logs without log-probabilities (AWR, arXiv 1910.00177).

Shape letters: B batch, H horizon, D action dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def advantage_weight(advantage_B: Tensor, beta: float, cap: float) -> Tensor:
    """min(exp(A / beta), cap). A small beta trusts the critic more; the cap bounds what one sample can weigh.

    Returns weights [B].
    """
    return torch.exp((advantage_B / beta).clamp(max=math.log(cap)))


def weighted_flow_matching_loss(loss_BHD: Tensor, weight_B: Tensor) -> Tensor:
    """Weighted mean of unreduced flow-matching errors; equal weights give the plain mean. Returns a scalar."""
    return (loss_BHD.mean(dim=(1, 2)) * weight_B).sum() / weight_B.sum()
