"""Sizes of a pi0 or pi0.5 model. Frozen, and plain numbers only, so that a checkpoint can store them as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from pirl_server.model.byte_tokens import VOCABULARY
from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig

Family = Literal["pi0", "pi05"]
"""pi0 mixes time into the action tokens and reads a state token; pi0.5 modulates its norms and reads no state"""


@dataclass(frozen=True)
class Pi0Config:
    """Everything needed to build `Pi0`."""

    vision: VisionConfig | None
    """None: the policy sees no camera"""
    vlm: TowerConfig
    expert: TowerConfig
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_tokens: int
    """longest prompt, in tokens"""
    state_dim: int
    action_dim: int
    horizon: int
    family: Family = "pi0"

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(f"model family '{self.family}' is not known; there are: {', '.join(get_args(Family))}")
        if self.heads % self.kv_heads or self.head_dim % 2 or self.expert.width % 2:
            raise ValueError(
                f"{self.heads} heads must be a multiple of {self.kv_heads} key/value heads, head_dim {self.head_dim} "
                f"and the expert's width {self.expert.width} must be even"
            )

    @property
    def state_token(self) -> bool:
        """pi0 reads the state vector, pi0.5 its text in the prompt."""
        return self.family == "pi0"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Pi0Config:
        """Inverse of `dataclasses.asdict`. Raises TypeError on unknown or missing fields, ValueError on bad sizes."""
        vision = fields["vision"]
        nested = {
            "vision": None if vision is None else VisionConfig(**vision),
            "vlm": TowerConfig(**fields["vlm"]),
            "expert": TowerConfig(**fields["expert"]),
        }
        return cls(**{**fields, **nested})


def tiny(state_dim: int = 32, action_dim: int = 4, horizon: int = 4) -> Pi0Config:
    """About 1.6 M parameters: one 64 px camera, state and byte tokens. Trains on a CPU."""
    return Pi0Config(
        vision=VisionConfig(image_px=64, patch_px=8, width=96, depth=3, heads=4, mlp_dim=384),
        vlm=TowerConfig(width=96, mlp_dim=384),
        expert=TowerConfig(width=128, mlp_dim=512),
        depth=3,
        heads=8,
        kv_heads=1,
        head_dim=16,
        vocabulary=VOCABULARY,
        max_tokens=96,
        state_dim=state_dim,
        action_dim=action_dim,
        horizon=horizon,
    )


def tiny_state(state_dim: int = 32, action_dim: int = 4, horizon: int = 4) -> Pi0Config:
    """About 0.5 M parameters and no camera: instruction and state only, for fast simulation on a CPU."""
    return replace(
        tiny(state_dim, action_dim, horizon),
        vision=None,
        vlm=TowerConfig(width=64, mlp_dim=256),
        expert=TowerConfig(width=96, mlp_dim=192),
    )
