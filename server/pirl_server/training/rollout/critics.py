"""Inputs of the critic: a state vector, the action expert's outputs (V_expert) or the prefix (V_vlm).

Each also reads the elapsed share of the episode, in its last column: a time limit is then a true end, whose value is 0.

Shape letters: N environments, F features, K denoise steps, W width, S state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pirl_server.config.training import PpoConfig
from pirl_server.model.critic import StateCritic, ValueHead
from pirl_server.policy.features import FEATURES, STATE_DIM, Array
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard


def make_critic(policy: FlowPolicy, config: PpoConfig) -> nn.Module:
    """A fresh critic for this policy. Raises ValueError for critic features that are not known."""
    state = StateCritic(critic_width(policy.card, config.critic_features or POLICY))
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
    array: Array = torch.as_tensor(pooled_NW).expand(batch, -1)[:, None].detach().float().cpu().numpy()
    return array


# What the critic of online RL in simulation reads, by the name that a configuration carries.
# Shape letters: N environments, S state, F features.

POLICY = "policy"
AND_INSTRUCTION = "_and_instruction"


def critic_width(card: ModelCard, name: str) -> int:
    """F of a critic's features by name. Raises ValueError for an unknown one."""
    base = _checked(name)
    state = card.model.state_dim if base == POLICY else STATE_DIM
    return state + (len(card.instructions) if _told(name) else 0)


@dataclass(frozen=True)
class CriticInput:
    """State features, and after them the instruction as a one-hot where the name ends in `_and_instruction`.

    Raises ValueError for an unknown name.
    """

    policy: FlowPolicy
    name: str
    """"policy" (what the policy reads) or a key of `FEATURES`, either with the ending or without"""

    def __post_init__(self) -> None:
        _checked(self.name)

    @property
    def is_the_policys(self) -> bool:
        """Whether the policy's own features can be taken from it."""
        return self.name == POLICY

    def features(self, state_NS: Array, sentence_N: NDArray[np.int64]) -> Array:
        """Return [N, F]; `sentence_N` is the number of each episode's instruction."""
        features: Array = FEATURES.get(_checked(self.name), self.policy.features)(state_NS)
        if not _told(self.name):
            return features
        told = np.eye(len(self.policy.instructions), dtype=np.float32)[sentence_N]
        return np.concatenate([features, told], axis=1)


def _told(name: str) -> bool:
    return name.endswith(AND_INSTRUCTION)


def _checked(name: str) -> str:
    """Return the name without its ending."""
    base = name.removesuffix(AND_INSTRUCTION)
    if base != POLICY and base not in FEATURES:
        known = ", ".join((POLICY, *FEATURES))
        raise ValueError(
            f"critic_features '{name}' are not known; there are: {known}, each also with {AND_INSTRUCTION}"
        )
    return base
