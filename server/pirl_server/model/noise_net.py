"""The learnable noise of Flow-Noise: from the action expert's outputs to the size of each denoise step's noise.

Shape letters: B batch, H horizon, D action dim, W feature width.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_BHD, t_B) -> velocity [B, H, D] and the expert's outputs [B, H, W]"""


class NoiseNet(nn.Module):
    """MLP of tanh layers on each action token, so that it sees observation, noisy chunk and time; pi_RL's widths.

    Its raw output is bounded by `algorithm.flow_noise.bounded_std`. Features keep their graph: likelihood and entropy
    also teach the expert. No dropout: the PPO ratio would not start at 1.
    """

    def __init__(self, width: int, action_dim: int, hidden: tuple[int, ...] = (128, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((width, *hidden)):
            layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], action_dim))

    def forward(self, features_BHW: Tensor) -> Tensor:
        """Raw output u [B, H, D]; 0 stands for the geometric mean of the bounds."""
        return self.layers(features_BHW)  # type: ignore[no-any-return]


def noisy_velocity(predict: Predict, net: NoiseNet) -> Callable[[Tensor, Tensor], Tensor]:
    """A velocity with the noise net's output behind it, [v, u] [B, H, 2 D], as Flow-Noise's transition reads it."""

    def velocity(x_BHD: Tensor, t_B: Tensor) -> Tensor:
        v_BHD, features_BHW = predict(x_BHD, t_B)
        return torch.cat([v_BHD, net(features_BHW)], dim=-1)

    return velocity
