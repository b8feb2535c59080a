"""Chunks whose exact velocity is known and that a naive switch tears: smooth, and one of two ways to do it.

A chunk [H] is s m + AR(1) noise of unit variance, s = +1 or -1 with equal chance. Clock: t = 1 noise, t = 0 action.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pirl_server.algorithm.flow import per_chunk

HORIZON, STAY = 12, 0.9
"""correlation of two neighbouring actions"""
INDEX = torch.arange(HORIZON, dtype=torch.float64)
COVARIANCE = STAY ** (INDEX[:, None] - INDEX).abs()


class Smooth:
    """The velocity of such a policy."""

    def __init__(self, mode: float) -> None:
        self.mean_H = mode * torch.ones(HORIZON, dtype=torch.float64)

    @property
    def std(self) -> float:
        """Of one action of the policy, both ways together."""
        return float((1.0 + self.mean_H[0] ** 2) ** 0.5)

    def expected(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """E[action | x_t] [B, H, 1] for one time in the whole batch."""
        t = t_B[0]
        total_HH = (1.0 - t) ** 2 * COVARIANCE + t**2 * torch.eye(HORIZON, dtype=torch.float64)
        precision_HH = torch.linalg.inv(total_HH)
        ways, logits = [], []
        for sign in (1.0, -1.0):
            off_BH = x_BHD[..., 0] - (1.0 - t) * sign * self.mean_H
            ways.append(sign * self.mean_H + (1.0 - t) * off_BH @ precision_HH @ COVARIANCE)
            logits.append(-0.5 * ((off_BH @ precision_HH) * off_BH).sum(dim=1))
        share_SB = torch.softmax(torch.stack(logits), dim=0)
        return (share_SB[..., None] * torch.stack(ways)).sum(dim=0)[..., None]

    def velocity(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """E[noise - action | x_t]."""
        return (x_BHD - self.expected(x_BHD, t_B)) / per_chunk(t_B)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Chunks [B, H, 1], exactly."""
        sign_B1 = torch.randint(2, (batch, 1), generator=generator).double() * 2 - 1
        normal_BH = torch.randn(batch, HORIZON, generator=generator, dtype=torch.float64)
        return (sign_B1 * self.mean_H + normal_BH @ torch.linalg.cholesky(COVARIANCE).T)[..., None]
