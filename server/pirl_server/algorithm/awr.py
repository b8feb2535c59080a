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


def weighted_flow_matching_loss(loss_BHD: Tensor, weight_B: Tensor, valid_BH: Tensor | None = None) -> Tensor:
    """Weighted mean of unreduced flow-matching errors over the valid actions; without `valid_BH` all are.

    Every action counts by the weight of its chunk, however many of the chunk are valid: equal weights give the plain
    mean. Returns a scalar, 0 where nothing counts.
    """
    weight_BH = weight_B[:, None].expand(loss_BHD.shape[:2])
    if valid_BH is not None:
        weight_BH = weight_BH * valid_BH.to(weight_BH.dtype)
    total = weight_BH.sum().clamp(min=torch.finfo(loss_BHD.dtype).tiny)
    return (loss_BHD.mean(dim=2) * weight_BH).sum() / total
