"""Metadata beside the weights: what the folder itself states about the policy's inputs. None: not stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pirl_server.interchange.checkpoints.statistics import Statistics
from pirl_server.model.pi0.config import Family
from pirl_server.policy.processing_spec import PromptFormat, Scheme

OPENPI_CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
Stack = Literal["openpi", "lerobot"]
"""whose layout a folder has"""


@dataclass(frozen=True)
class Side:
    """Read from config.json, norm_stats.json or lerobot's processors."""

    stack: Stack
    cameras: tuple[str, ...]
    """the model's image inputs in their order"""
    empty_cameras: tuple[str, ...] = ()
    """those of them that never had a camera"""
    camera_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """height and width, where the folder says them"""
    family: Family | None = None
    variants: tuple[str | None, str | None] = (None, None)
    """of the language model and of the expert: see `model_sizes.VARIANTS`"""
    head_dim: int | None = None
    vision_heads: int | None = None
    horizon: int | None = None
    execute_horizon: int | None = None
    denoise_steps: int = 10
    max_tokens: int | None = None
    model_dims: tuple[int | None, int | None] = (None, None)
    """padded state and action width that config.json claims"""
    real_dims: tuple[int | None, int | None] = (None, None)
    """state and action width of the robot"""
    image_px: int | None = None
    prompt: PromptFormat | None = None
    delta: tuple[bool, ...] | None = None
    schemes: tuple[Scheme, Scheme] | None = None
    """normalisation of state and action; None: the family's own"""
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    """"state" and "action", where the folder has them"""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """the side files as they were, by their path in the folder"""
