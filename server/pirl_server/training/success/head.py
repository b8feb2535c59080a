"""The small network on top of a backbone's features. Shapes: N episodes, V cameras, C cells, W features, S state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LEAST_STD = 1e-4


@dataclass(frozen=True)
class HeadShape:
    """What a head reads, and its sizes."""

    cameras: int
    cells: int
    width: int
    """features of a cell"""
    state: int
    """entries of the state that are read; 0: none"""
    instructions: int
    channels: int
    hidden: int


@dataclass(frozen=True)
class Inputs:
    """What is known of some episodes."""

    features: Tensor
    """[N, V, C, W] of the final images"""
    state: Tensor
    """[N, S]; S is 0 where it is not read"""
    instruction: Tensor
    """[N, I] one-hot"""

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, which: Tensor) -> Inputs:
        """Return those of the episodes at positions `which` [M]."""
        return Inputs(self.features[which], self.state[which], self.instruction[which])


class SuccessHead(nn.Module):
    """A logit of success from features of every cell, where each cell is, the state, and which instruction it was.

    Features are standardised per cell and feature: what differs between images is small beside what differs between
    cells.
    """

    mean: Tensor
    std: Tensor
    state_mean: Tensor
    state_std: Tensor

    def __init__(self, shape: HeadShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        by_cell = (shape.cameras, shape.cells, shape.width)
        self.register_buffer("mean", torch.zeros(by_cell))
        self.register_buffer("std", torch.ones(by_cell))
        self.register_buffer("state_mean", torch.zeros(shape.state))
        self.register_buffer("state_std", torch.ones(shape.state))
        self.norm, self.squeeze = nn.LayerNorm(shape.width), nn.Linear(shape.width, shape.channels)
        self.place = nn.Parameter(torch.zeros(shape.cameras, shape.cells, shape.channels))
        inner = shape.cameras * shape.cells * shape.channels + shape.state + shape.instructions
        self.drop = nn.Dropout(dropout)
        self.hidden, self.out = nn.Linear(inner, shape.hidden), nn.Linear(shape.hidden, 1)

    def standardise(self, inputs: Inputs) -> None:
        """Take mean and standard deviation from the episodes that are learnt."""
        for value, mean, std in (
            (inputs.features, self.mean, self.std),
            (inputs.state, self.state_mean, self.state_std),
        ):
            mean.copy_(value.mean(dim=0))
            std.copy_(((value - mean) ** 2).mean(dim=0).sqrt().clamp(min=LEAST_STD))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the logits [N]."""
        cells = self.norm((inputs.features - self.mean) / self.std)
        kept = nn.functional.gelu(self.squeeze(cells) + self.place).flatten(1)
        state = (inputs.state - self.state_mean) / self.state_std
        inner = self.drop(torch.cat([kept, state, inputs.instruction], dim=1))
        logits: Tensor = self.out(nn.functional.gelu(self.hidden(inner)))
        return logits.squeeze(1)
