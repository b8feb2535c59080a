"""Flow time as waves, which every family reads.

Shape letters: W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHORTEST_PERIOD, LONGEST_PERIOD = 4e-3, 4.0


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sines then cosines [..., W] of t [...] at geometric periods; float64, because the fastest turns 250 times."""
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=t.device)
    period = SHORTEST_PERIOD * (LONGEST_PERIOD / SHORTEST_PERIOD) ** fraction
    angle = t.double()[..., None] * (2.0 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
