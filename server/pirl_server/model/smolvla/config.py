"""Sizes of a SmolVLA model. Frozen, and plain numbers only, so that a checkpoint can store them as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pirl_server.model.byte_tokens import VOCABULARY
from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig

SMOLVLM_VOCABULARY = 49_280
"""rows of SmolVLM2's token embedding"""


@dataclass(frozen=True)
class SmolVlaConfig:
    """Everything needed to build `SmolVla`."""

    vision: VisionConfig | None
    """None: the policy sees no camera"""
    pixel_shuffle: int
    """side of the square of patches that becomes one token; 1: each patch is one"""
    vlm: TowerConfig
    expert: TowerConfig
    depth: int
    """layers of the language model that count, and of the expert"""
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_tokens: int
    """longest prompt, in tokens"""
    state_dim: int
    action_dim: int
    horizon: int
    self_attention_every: int = 2
    """layers 0, n, 2 n, ... of the expert attend to the prefix and to the actions before; the others to the prefix"""
    family: Literal["smolvla"] = "smolvla"

    def __post_init__(self) -> None:
        if self.family != "smolvla":
            raise ValueError(f"model family '{self.family}' has other sizes than smolvla")
        if self.heads % self.kv_heads or self.head_dim % 2 or self.expert.width % 2:
            raise ValueError(
                f"{self.heads} heads must be a multiple of {self.kv_heads} key/value heads, head_dim {self.head_dim} "
                f"and the expert's width {self.expert.width} must be even"
            )
        if self.vision is not None and math.isqrt(self.vision.patches) % self.pixel_shuffle:
            raise ValueError(
                f"pixel_shuffle {self.pixel_shuffle} must divide the {math.isqrt(self.vision.patches)} patches of a"
                " row of the image"
            )

    @property
    def state_token(self) -> bool:
        """The state vector is read."""
        return True

    @property
    def image_tokens(self) -> int:
        """Tokens per camera."""
        return 0 if self.vision is None else self.vision.patches // self.pixel_shuffle**2

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SmolVlaConfig:
        """Inverse of `dataclasses.asdict`. Raises TypeError on unknown or missing fields, ValueError on bad sizes."""
        vision = fields["vision"]
        nested = {
            "vision": None if vision is None else VisionConfig(**vision),
            "vlm": TowerConfig(**fields["vlm"]),
            "expert": TowerConfig(**fields["expert"]),
        }
        return cls(**{**fields, **nested})


def smolvla(state_dim: int = 32, action_dim: int = 32, horizon: int = 50) -> SmolVlaConfig:
    """lerobot's SmolVLA, 450 M parameters: SmolVLM2-500M cut at 16 layers, a 100 M expert, 512 px images."""
    return SmolVlaConfig(
        vision=VisionConfig(image_px=512, patch_px=16, width=768, depth=12, heads=12, mlp_dim=3072),
        pixel_shuffle=4,
        vlm=TowerConfig(width=960, mlp_dim=2560),
        expert=TowerConfig(width=720, mlp_dim=2048),
        depth=16,
        heads=15,
        kv_heads=5,
        head_dim=64,
        vocabulary=SMOLVLM_VOCABULARY,
        max_tokens=48,
        state_dim=state_dim,
        action_dim=action_dim,
        horizon=horizon,
    )


def tiny(state_dim: int = 32, action_dim: int = 4, horizon: int = 4) -> SmolVlaConfig:
    """About 1.6 M parameters: one 64 px camera, state and byte tokens. Trains on a CPU."""
    return SmolVlaConfig(
        vision=VisionConfig(image_px=64, patch_px=8, width=96, depth=3, heads=4, mlp_dim=384),
        pixel_shuffle=2,
        vlm=TowerConfig(width=96, mlp_dim=256),
        expert=TowerConfig(width=128, mlp_dim=384),
        depth=4,
        heads=6,
        kv_heads=2,
        head_dim=16,
        vocabulary=VOCABULARY,
        max_tokens=96,
        state_dim=state_dim,
        action_dim=action_dim,
        horizon=horizon,
    )


def tiny_state(state_dim: int = 32, action_dim: int = 4, horizon: int = 4) -> SmolVlaConfig:
    """About 0.5 M parameters and no camera: instruction and state only, for fast simulation on a CPU."""
    return replace(
        tiny(state_dim, action_dim, horizon),
        vision=None,
        pixel_shuffle=1,
        vlm=TowerConfig(width=64, mlp_dim=192),
        expert=TowerConfig(width=96, mlp_dim=192),
    )
