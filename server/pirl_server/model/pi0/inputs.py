"""One batch of observations and noise at fixed shapes: what a compiled chunk reads.

Shape letters: B rows, C cameras, L text tokens, H horizon, D action dim, S state dim.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from pirl_server.model.pi0.config import Pi0Config


@dataclass(frozen=True)
class Inputs:
    """A caller's batch, or the buffers that hold one."""

    images: Tensor | None
    """[B, C, 3, h, w] in [-1, 1]; None for a model without a camera"""
    image_mask: Tensor | None
    """[B, C]"""
    tokens: Tensor
    """[B, L]"""
    token_mask: Tensor
    """[B, L]"""
    state: Tensor
    """[B, S]"""
    noise: Tensor
    """[B, H, D]"""

    @classmethod
    def zeros(cls, config: Pi0Config, batch: int, cameras: int, length: int, device: torch.device) -> Inputs:
        """Empty buffers."""
        zeros = partial(torch.zeros, device=device)
        images = image_mask = None
        if config.vision is not None:
            images = zeros(batch, cameras, 3, config.vision.image_px, config.vision.image_px)
            image_mask = zeros(batch, cameras, dtype=torch.bool)
        tokens, token_mask = zeros(batch, length, dtype=torch.long), zeros(batch, length, dtype=torch.bool)
        state, noise = zeros(batch, config.state_dim), zeros(batch, config.horizon, config.action_dim)
        return cls(images, image_mask, tokens, token_mask, state, noise)

    def fill(self, batch: Inputs, length: int) -> None:
        """Copy a batch and the first `length` words of its prompts into the first rows.

        Rows left over keep what they had, which nobody reads.
        """
        self.token_mask.zero_()
        for entry in fields(Inputs):
            target, source = getattr(self, entry.name), getattr(batch, entry.name)
            if target is not None:
                fitting = source[:, :length] if entry.name in ("tokens", "token_mask") else source
                target[: len(fitting), : fitting.shape[1]].copy_(fitting)
