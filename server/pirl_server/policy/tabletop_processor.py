"""Processor of our own small policies: fixed physical scales, byte prompts, images as they are.

Shape letters as in `processor`: N robots or environments, C cameras, H horizon, D = A action dim, S state, F features,
L prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pirl_server.model.byte_tokens import encode_all
from pirl_server.policy.features import FEATURES
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processor import Array, Images


class TabletopProcessor:
    """See `Processor`. Model and contract have the same action dimensions; the state is never in the prompt."""

    state_in_prompt = False

    def __init__(self, card: ModelCard) -> None:
        self._features = FEATURES[card.features]
        self._scale = np.asarray(card.action_scale, np.float32)
        self._max_tokens = card.model.max_tokens
        self._cameras = [camera.name for camera in card.contract.cameras]

    def features(self, state_NS: Array) -> Array:
        """Named feature set of the card [N, F]."""
        return self._features(state_NS)

    def images(self, images: Images) -> tuple[Tensor, Tensor]:
        """Scale to [-1, 1] in the contract's order of cameras; all exist.

        Pixels [N, C, 3, h, w] and which exist [N, C].
        """
        stacked = np.stack([images[name] for name in self._cameras], axis=1)
        scaled = torch.from_numpy(stacked).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        return scaled, torch.ones(scaled.shape[:2], dtype=torch.bool)

    def prompts(self, instructions: Sequence[str], state_NS: Array) -> tuple[Tensor, Tensor]:
        """Byte tokens in pi0's form. Ids and validity [N, L]."""
        return encode_all(list(instructions), self._max_tokens)

    def to_actions(self, x_NHA: Tensor, state_NS: Array) -> Array:
        """Scale to the contract's units. Returns [N, H, D]."""
        actions: Array = x_NHA.numpy() * self._scale
        return actions

    def to_model(self, actions_NHD: Array, state_NS: Array) -> Tensor:
        """Scale to model space. Returns [N, H, A]."""
        return torch.from_numpy(actions_NHD / self._scale)
