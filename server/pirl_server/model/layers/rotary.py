"""Rotary position embedding, half-split: the pair (x_i, x_{i + E/2}) turns by its position times a frequency.

Shape letters: B batch, S tokens, N heads, E head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10_000.0

Turn = tuple[Tensor, Tensor]
"""per token and channel the cosine, and the sine with the sign of its half; each [B, 1, S, E], float32 or wider"""


def rotary(position_BS: Tensor, head_dim: int, dtype: torch.dtype) -> Turn:
    """How far each token's pairs turn; float32 or wider, whatever the model computes in."""
    wide = torch.promote_types(dtype, torch.float32)
    fraction = torch.arange(0, head_dim, 2, device=position_BS.device, dtype=wide) / head_dim
    angle = position_BS[:, None, :, None] * (1.0 / BASE**fraction)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Turn [B, N, S, E]; the result has the same shape, contiguous: heads become queries without a copy."""
    cos, sin = turn
    wide = x.to(cos.dtype)
    return (wide.roll(x.shape[-1] // 2, dims=-1) * sin).addcmul_(wide, cos).to(x.dtype)
