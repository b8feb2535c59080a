"""What the critic of online RL in simulation reads, by the name that a configuration carries.

Shape letters: N environments, S state, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_server.policy.features import FEATURES, STATE_DIM, Array
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard

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
