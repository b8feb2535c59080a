"""Metadata beside the weights: what the folder itself states about the policy's inputs. None: not stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pirl_server.interchange.checkpoints.statistics import Statistics
from pirl_server.policy.processing_spec import PromptFormat, Scheme

OPENPI_CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
Stack = Literal["openpi", "lerobot"]
"""whose layout a folder has"""
PromptState = Literal["robot", "padded"]
"""state in a pi0.5 prompt: the robot's own entries, or filled up with zeros to the model's width (lerobot 0.4)"""


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
    camera_names: Mapping[str, str] = field(default_factory=dict)
    """image input -> the robot's camera, where the folder renames it"""
    family: str | None = None
    variants: tuple[str | None, str | None] = (None, None)
    """of the language model and of the expert: see `model_sizes.VARIANTS`"""
    head_dim: int | None = None
    vision_heads: int | None = None
    self_attention_every: int = 2
    """of SmolVLA's expert layers"""
    horizon: int | None = None
    execute_horizon: int | None = None
    denoise_steps: int = 10
    max_tokens: int | None = None
    model_dims: tuple[int | None, int | None] = (None, None)
    """padded state and action width that config.json claims"""
    real_dims: tuple[int | None, int | None] = (None, None)
    """state and action width as declared: the robot's, or the model's when the base's config.json was kept"""
    image_px: int | None = None
    prompt: PromptFormat | None = None
    prompt_state: PromptState | None = None
    prompt_state_dim: int | None = None
    """entries of the state in a pi0.5 prompt of a version that pads it"""
    delta: tuple[bool, ...] | None = None
    """per action dimension; beyond the robot's: padding"""
    schemes: tuple[Scheme, Scheme] | None = None
    """normalisation of state and action; None: the family's own"""
    ranges: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """of "state" and "action": the two statistics of a quantile scheme where they are not q01 and q99"""
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    """"state" and "action", where the folder has them"""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """the side files as they were, by their path in the folder"""
