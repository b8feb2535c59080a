"""What tells a decision's value: a state vector, the action expert's outputs (V_expert) or the prefix (V_vlm).

Each also reads the elapsed share of the episode, in its last column: a time limit is then a true end, whose value is 0.

Shape letters: N environments, F features, K denoise steps, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pirl_server.config.training import PpoConfig
from pirl_server.model.critic import StateCritic, ValueHead
from pirl_server.policy.features import Array
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.rollout.critic_input import critic_width


def make_critic(policy: FlowPolicy, config: PpoConfig) -> nn.Module:
    """A fresh critic for this policy. Raises ValueError for critic features that are not known."""
    state = StateCritic(critic_width(policy.card, config.critic_features))
    if config.critic == "state":
        return state
    model = policy.card.model
    return ValueHead((model.expert if config.critic == "expert" else model.vlm).width + 1)


def value(critic: nn.Module, features: Tensor) -> Tensor:
    """Value [...] of a state's features [..., F]; of what a head reads [..., K, W + 1] the mean over K (Eq. 16)."""
    if isinstance(critic, StateCritic):
        found: Tensor = critic(features[..., :-1], features[..., -1])
        return found
    per_step: Tensor = critic(features)
    return per_step.mean(dim=-1)


def with_elapsed(read: Array, elapsed_N: Array) -> Array:
    """Append the elapsed share to what was read of each environment, [N, F] or [N, K, W]."""
    column = elapsed_N.reshape(-1, *[1] * (read.ndim - 1))
    return np.concatenate([read, np.broadcast_to(column, (*read.shape[:-1], 1))], axis=-1)


def prefix_reading(pooled_NW: Tensor | None, batch: int) -> Array:
    """What V_vlm reads [N, 1, W], one value per observation, of a prefix that was encoded with its mean output."""
    assert pooled_NW is not None
    array: Array = torch.as_tensor(pooled_NW).expand(batch, -1)[:, None].detach().cpu().numpy()
    return array
