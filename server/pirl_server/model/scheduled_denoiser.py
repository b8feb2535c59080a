"""A velocity on a fixed schedule of K denoise steps, whatever the family: `ChunkDenoiser` for one step's prediction.

Shape letters: B batch, H horizon, D action dim, K denoise steps, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


def schedule_times(like: Tensor, steps: int) -> Tensor:
    """The times 1, (K-1)/K, ..., 1/K: shape [K], where `like` of any shape is, float32 or wider."""
    step_K = torch.arange(steps, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    return 1.0 - step_K / steps


class ScheduledDenoiser(ABC):
    """Which step of the schedule a time is; plain Euler samples. For inference."""

    steps: int

    @abstractmethod
    def _predict(self, k: int, x_BHD: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the expert's outputs [B, H, W] at the time of denoise step k, 0..K-1."""

    @torch.no_grad()
    def __call__(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """Velocity [B, H, D] at t_B = 1 - k / K."""
        return self._predict(self._step(t_B), x_BHD)[0]

    def differentiable(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """The same, for guidance: its derivative by x can be taken. Returns [B, H, D]."""
        return self._predict(self._step(t_B), x_BHD)[0]

    @torch.no_grad()
    def velocity_at(self, k: int, x_BHD: Tensor) -> Tensor:
        """Velocity [B, H, D] at the time of denoise step k, 0..K-1."""
        return self._predict(k, x_BHD)[0]

    @torch.no_grad()
    def predict(self, x_BHD: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the expert's outputs [B, H, W], which the noise net and V_expert read."""
        return self._predict(self._step(t_B), x_BHD)

    def sample(self, noise_BHD: Tensor) -> Tensor:
        """Chunk [B, H, D]: K Euler steps from the noise."""
        x_BHD = noise_BHD
        for k in range(self.steps):
            x_BHD = x_BHD - self.velocity_at(k, x_BHD) / self.steps
        return x_BHD

    def _step(self, t_B: Tensor) -> int:
        t = float(t_B[0])
        k = round((1.0 - t) * self.steps)
        assert abs(1.0 - k / self.steps - t) < 1e-6, f"t = {t} is not one of the {self.steps} times of the schedule"
        return k
