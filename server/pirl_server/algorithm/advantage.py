"""Advantages made comparable: normalised over a batch, or relative to a group of episodes from one initial state.

Shape letters: G groups, N episodes per group; `normalise` takes any shape.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalise(advantage: Tensor, valid: Tensor) -> Tensor:
    """(A - mean) / (std + 1e-5) over the valid entries; 0 elsewhere and when nothing varies."""
    weight = valid.to(advantage.dtype)
    count = weight.sum().clamp(min=1.0)
    centred = (advantage - (advantage * weight).sum() / count) * weight
    return centred / (((centred**2).sum() / count).sqrt() + 1e-5)


def group_relative(return_GN: Tensor) -> Tensor:
    """GRPO: (R - group mean) / (group std + 1e-6), unbiased std; an all-equal group gives 0 (arXiv 2402.03300)."""
    centred_GN = return_GN - return_GN.mean(dim=1, keepdim=True)
    return centred_GN / (torch.std(return_GN, dim=1, keepdim=True) + 1e-6)
