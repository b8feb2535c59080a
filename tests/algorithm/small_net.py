"""A network small enough to read: velocity, and raw noise behind it where asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pirl_server.algorithm.flow import per_chunk


class Net(nn.Module):
    """Per token from [x, t] to `out` channels; three action dimensions."""

    def __init__(self, dropout: float, out: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Dropout(dropout), nn.Linear(64, out))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.cat([x, per_chunk(t).expand_as(x[..., :1])], dim=-1))
        return out
