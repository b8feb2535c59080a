"""Value networks: on the expert's features (pi_RL's V_expert and V_vlm), and a separate one on a state vector.

Shape letters: B batch, H horizon, W feature width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def expert_value_input(features_BHW: Tensor, *, detach: bool) -> Tensor:
    """V_expert's input: the expert's action-token outputs averaged over the horizon [B, W] (paper Eq. 16).

    `detach` keeps the value loss out of the expert, as pi_RL does for pi0.
    """
    pooled_BW = features_BHW.mean(dim=1)
    return pooled_BW.detach() if detach else pooled_BW


class ValueHead(nn.Module):
    """The paper's four-layer value MLP: ReLU, Kaiming fan-out, last layer N(0, 0.02^2), zero biases."""

    def __init__(self, width: int, hidden: tuple[int, int, int] = (512, 256, 128)) -> None:
        super().__init__()
        sizes = [width, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(sizes, hidden):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
        last = nn.Linear(hidden[-1], 1)
        nn.init.normal_(last.weight, std=0.02)
        self.layers = nn.Sequential(*layers, last)
        for bias in (p for name, p in self.named_parameters() if name.endswith("bias")):
            nn.init.zeros_(bias)

    def forward(self, features_BW: Tensor) -> Tensor:
        """Value [B]."""
        return self.layers(features_BW).squeeze(-1)  # type: ignore[no-any-return]


class StateCritic(nn.Module):
    """A critic apart from the policy: observation vector and elapsed fraction of the time limit to a value.

    Knowing the elapsed time makes the time limit a true end, whose value is 0. tanh, orthogonal initialisation, a small
    last layer: a fresh critic says nearly 0 everywhere.
    """

    def __init__(self, obs_dim: int, hidden: int = 256, layers: int = 2) -> None:
        super().__init__()
        sizes = [obs_dim + 1] + [hidden] * layers
        stack: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            stack += [orthogonal(fan_in, fan_out, 2.0**0.5), nn.Tanh()]
        self.layers = nn.Sequential(*stack, orthogonal(hidden, 1, 0.01))

    def forward(self, obs: Tensor, elapsed: Tensor) -> Tensor:
        """Value [...] of observations [..., obs_dim] at elapsed time fractions [...] in 0..1."""
        return self.layers(torch.cat([obs, elapsed[..., None]], dim=-1)).squeeze(-1)  # type: ignore[no-any-return]


def orthogonal(fan_in: int, fan_out: int, gain: float) -> nn.Linear:
    """Linear layer with orthogonal weight of the given gain and zero bias."""
    linear = nn.Linear(fan_in, fan_out)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear
