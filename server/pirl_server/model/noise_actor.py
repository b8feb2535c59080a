"""A small network that chooses the noise a frozen flow starts from (DSRL, arXiv 2506.15799).

Shape letters: B batch, F state features, W width of the prefix' mean output, H horizon, D action dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LARGEST_MEAN, SMALLEST_STD = 2.0, 0.1
"""of the noise that it may choose: beyond two standard deviations the flow has hardly been trained"""


class NoiseActor(nn.Module):
    """Mean and standard deviation of the initial noise of the real action dimensions, given what the policy reads.

    A fresh one leaves the noise as it is, to the bit.
    """

    def __init__(self, features: int, width: int, horizon: int, action_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self._shape = (horizon, action_dim)
        last = nn.Linear(hidden, 2 * horizon * action_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Linear(features + width, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), last
        )

    def forward(self, features_BF: Tensor, pooled_BW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, each [B, H, D]. The mean is bounded, the deviation at most 1."""
        pooled_BW = pooled_BW.expand(len(features_BF), -1)
        mean, log_std = self.layers(torch.cat([features_BF, pooled_BW], dim=1)).chunk(2, dim=1)
        mean_BHD, log_std_BHD = (part.reshape(-1, *self._shape) for part in (mean, log_std))
        return LARGEST_MEAN * torch.tanh(mean_BHD / LARGEST_MEAN), log_std_BHD.clamp(math.log(SMALLEST_STD), 0.0)

    def steer(self, noise_BHA: Tensor, features_BF: Tensor, pooled_BW: Tensor) -> Tensor:
        """Noise N(0, I) to chosen noise [B, H, A], A >= D the model's action dim: what pads the action stays."""
        mean_BHD, log_std_BHD = self(features_BF, pooled_BW)
        real = mean_BHD.shape[2]
        return torch.cat([mean_BHD + log_std_BHD.exp() * noise_BHA[..., :real], noise_BHA[..., real:]], dim=2)
