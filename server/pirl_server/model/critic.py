"""Value networks: pi_RL's V_expert on the expert's outputs, its V_vlm on the prefix, and one apart on a state vector.

Shape letters: B batch, K denoise steps, H horizon, W feature width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from pirl_server.model.prefix import Prefix


def expert_value_input(features_BHW: Tensor, *, detach: bool, executed: int | None = None) -> Tensor:
    """V_expert's input: the expert's action-token outputs averaged over the horizon [..., W] (paper Eq. 16).

    `executed` averages over the first tokens only: those whose actions are played. `detach` keeps the value loss out
    of the expert, as pi_RL does for pi0.
    """
    pooled_BW = features_BHW[..., :executed, :].mean(dim=-2)
    return pooled_BW.detach() if detach else pooled_BW


def expert_value(head: ValueHead, features_BKHW: Tensor, *, detach: bool, executed: int | None = None) -> Tensor:
    """V_expert [B]: the head's mean over denoise steps (paper Eq. 16).

    A rollout has all K steps. An update may pass those it recomputes, K = 1 with the hybrid sampler: an estimate of the
    same mean from one step.
    """
    value_BK: Tensor = head(expert_value_input(features_BKHW, detach=detach, executed=executed))
    return value_BK.mean(dim=1)


def vlm_value(head: ValueHead, prefix: Prefix, *, detach: bool) -> Tensor:
    """V_vlm [B]: the head on the vision-language output, averaged over the tokens that exist.

    One value per observation, whatever the noise or the time. The prefix must be `pooled`; for pi0.5 it holds the
    state, for pi0 it does not. Raises ValueError for one that is not.
    """
    if prefix.pooled is None:
        raise ValueError("V_vlm reads the mean output of the prefix; encode it with pooled=True")
    value_B: Tensor = head(prefix.pooled.detach() if detach else prefix.pooled)
    return value_B


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
        """Value [...] of features [..., W]; of unpooled token outputs [B, H, W] one value per control step."""
        return self.layers(features_BW).squeeze(-1)  # type: ignore[no-any-return]


class StateCritic(nn.Module):
    """A critic apart from the policy: observation vector and elapsed fraction of the time limit to a value.

    Knowing the elapsed time makes the time limit a true end, whose value is 0. tanh, orthogonal initialisation, a small
    last layer: a fresh critic says nearly 0 everywhere.
    """

    def __init__(self, obs_dim: int, hidden: int = 256, layers: int = 2, outputs: int | None = None) -> None:
        """With `outputs`, that many numbers per observation: the logits of a distribution."""
        super().__init__()
        self._scalar = outputs is None
        sizes = [obs_dim + 1] + [hidden] * layers
        stack: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            stack += [orthogonal(fan_in, fan_out, 2.0**0.5), nn.Tanh()]
        self.layers = nn.Sequential(*stack, orthogonal(hidden, outputs or 1, 0.01))

    def forward(self, obs: Tensor, elapsed: Tensor) -> Tensor:
        """Value [...], or [..., outputs], of observations [..., obs_dim] at elapsed time fractions [...] in 0..1."""
        found: Tensor = self.layers(torch.cat([obs, elapsed[..., None]], dim=-1))
        return found.squeeze(-1) if self._scalar else found


def orthogonal(fan_in: int, fan_out: int, gain: float) -> nn.Linear:
    """Linear layer with orthogonal weight of the given gain and zero bias."""
    linear = nn.Linear(fan_in, fan_out)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear
