"""Sizes of a vision transformer and of a Gemma tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class VisionConfig:
    """A vision transformer over square RGB images."""

    image_px: int
    patch_px: int
    width: int
    depth: int
    heads: int
    mlp_dim: int

    @property
    def patches(self) -> int:
        """Tokens per image."""
        return (self.image_px // self.patch_px) ** 2


class StackConfig(Protocol):
    """Depth and attention sizes, which the Gemma towers of a model share; the model's configuration has them."""

    @property
    def depth(self) -> int:
        """Blocks."""

    @property
    def heads(self) -> int:
        """Query heads."""

    @property
    def kv_heads(self) -> int:
        """Key/value heads."""

    @property
    def head_dim(self) -> int:
        """Numbers per head."""


@dataclass(frozen=True)
class TowerConfig:
    """Width and MLP width of one Gemma tower; the two towers share depth and attention sizes."""

    width: int
    mlp_dim: int
