"""Processor of pretrained policies, as specified by their card's `processing`.

Order, as both stacks have it: relative actions, statistics on the real dimensions, then zeros up to the model's width.

Shape letters: N robots or environments, C cameras, H horizon, D the contract's actions, A the model's, S state,
F the model's state width, L prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pirl_server.policy.checkpoint import tokenizer_file
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.normalisation import Normaliser
from pirl_server.policy.processor import Array, Images
from pirl_server.policy.prompt import Prompter
from pirl_server.policy.resize import letterbox
from pirl_server.policy.tokenizer import open_tokenizer


class PretrainedProcessor:
    """See `Processor`."""

    def __init__(self, card: ModelCard, folder: Path | None) -> None:
        """`folder` holds the tokenizer's file; None where the tokenizer is bytes. Raises ValueError as it does."""
        assert card.processing is not None
        self._card, self._how = card, card.processing
        tokenizer = open_tokenizer(self._how.tokenizer, tokenizer_file(folder) if folder is not None else None)
        self._prompter = Prompter(
            tokenizer,
            self._how.prompt,
            self._how.clean_prompt,
            card.model.max_tokens,
            card.model.vocabulary,
            self._how.prompt_state_dim,
        )
        self._state, self._action = Normaliser(self._how.state), Normaliser(self._how.action)
        self._relative = np.flatnonzero(self._how.delta)

    @property
    def state_in_prompt(self) -> bool:
        """True for pi0.5 with the state as text."""
        return self._prompter.holds_state

    def features(self, state_NS: Array) -> Array:
        """Normalised state, zero-padded [N, F]."""
        return _padded(self._state.apply(state_NS), self._card.model.state_dim)

    def images(self, images: Images) -> tuple[Tensor, Tensor]:
        """One image per slot of the card; a slot without a camera is black and does not exist.

        Pixels [N, C, 3, h, w] and which exist [N, C].
        """
        vision = self._card.model.vision
        assert vision is not None, "a policy without vision has no images"
        rows, px = len(next(iter(images.values()))), vision.image_px
        out = torch.full((rows, len(self._how.slots), 3, px, px), -1.0)
        for index, slot in enumerate(self._how.slots):
            if slot.camera is not None:
                out[:, index] = letterbox(images[slot.camera], px, self._how.resize, self._how.pad)
        exists_C = torch.tensor([slot.camera is not None for slot in self._how.slots])
        return out, exists_C.expand(rows, -1)

    def prompts(self, instructions: Sequence[str], state_NS: Array) -> tuple[Tensor, Tensor]:
        """Token ids in the card's form, padded to the model's longest prompt. Ids and validity [N, L]."""
        return self._prompter.tokens(instructions, self._state.apply(state_NS))

    def to_actions(self, x_NHA: Tensor, state_NS: Array) -> Array:
        """Real dimensions in the contract's units; relative ones start from the state. Returns [N, H, D]."""
        actions_NHD = self._action.undo(x_NHA[..., : self._card.contract.action_dim].float().numpy())
        actions_NHD[..., self._relative] += state_NS[:, None, self._relative]
        return actions_NHD.astype(np.float32)

    def to_model(self, actions_NHD: Array, state_NS: Array) -> Tensor:
        """Inverse of `to_actions`. Returns [N, H, A]."""
        relative_NHD = actions_NHD.astype(np.float64)
        relative_NHD[..., self._relative] -= state_NS[:, None, self._relative]
        return torch.from_numpy(_padded(self._action.apply(relative_NHD), self._card.model.action_dim))


def _padded(x: np.ndarray, width: int) -> Array:
    out = np.zeros((*x.shape[:-1], width), np.float32)
    out[..., : x.shape[-1]] = x
    return out
