"""Reads lerobot's side files: config.json, older field names included, and the two processor pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from pirl_server.interchange.checkpoints.lerobot_features import (
    CONFIG,
    Feature,
    image_sizes,
    renamed_cameras,
    vector_width,
)
from pirl_server.interchange.checkpoints.lerobot_pipeline import (
    ACTION,
    POSTPROCESSOR,
    PREPROCESSOR,
    STATE,
    FeatureType,
    Mode,
    Pipelines,
    read_pipelines,
)
from pirl_server.interchange.checkpoints.source_folder import parse, plain_file, read_object
from pirl_server.interchange.checkpoints.source_metadata import Side
from pirl_server.interchange.checkpoints.statistics import Statistics
from pirl_server.policy.processing_spec import PromptFormat, Scheme

SCHEMES: dict[Mode, Scheme] = {
    "MEAN_STD": "zscore", "QUANTILES": "quantile", "QUANTILE10": "quantile", "MIN_MAX": "quantile", "IDENTITY": "none",
}  # fmt: skip
KINDS: dict[str, FeatureType] = {"state": "STATE", "action": "ACTION"}
RANGES: dict[Mode, tuple[str, str]] = {"QUANTILE10": ("q10", "q90"), "MIN_MAX": ("min", "max")}
"""statistics that take the place of q01 and q99: the formula is the same"""


OLDER_PROMPT: dict[str, PromptFormat] = {"smolvla": "smolvla"}
"""of versions that made prompts within the policy, where it is not pi0's"""


class _Config(BaseModel):
    """What decides the policy; training settings beside it are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore")
    type: Literal["pi0", "pi05", "smolvla"]
    input_features: dict[str, Feature] = {}
    output_features: dict[str, Feature] = {}
    normalization_mapping: dict[FeatureType, Mode] = {}
    n_obs_steps: Literal[1] = 1
    chunk_size: PositiveInt
    n_action_steps: PositiveInt | None = None
    max_state_dim: PositiveInt = 32
    max_action_dim: PositiveInt = 32
    num_inference_steps: PositiveInt | None = None
    num_steps: PositiveInt | None = None
    image_resolution: list[PositiveInt] | None = None
    resize_imgs_with_padding: list[PositiveInt] | None = None
    empty_cameras: NonNegativeInt = 0
    tokenizer_max_length: PositiveInt | None = None
    paligemma_variant: str | None = None
    action_expert_variant: str | None = None
    min_period: float = Field(4e-3, ge=4e-3, le=4e-3)
    max_period: float = Field(4.0, ge=4.0, le=4.0)
    """of the time embedding: those that the network has"""
    use_relative_actions: bool | None = None
    """None: written by a version before 0.5.1, which has no relative actions"""
    head_dim: PositiveInt | None = None
    vision_heads: PositiveInt | None = None
    attention_mode: Literal["cross_attn"] = "cross_attn"
    self_attn_every_n_layers: PositiveInt = 2
    add_image_special_tokens: Literal[False] = False
    use_visual_memory: Literal[False] = False
    use_proprioceptive_memory: Literal[False] = False
    adapt_to_pi_aloha: Literal[False] = False
    use_delta_joint_actions_aloha: Literal[False] = False


def read_lerobot(folder: Path, buffers: Mapping[str, Statistics]) -> Side:
    """What a lerobot folder says. Raises ValueError that names file and key at fault.

    `buffers` are the statistics that versions before 0.4 kept among the weights.
    """
    path = plain_file(folder, CONFIG)
    raw = read_object(path)
    if "input_features" not in raw and "type" not in raw and "action_horizon" in raw:
        raise ValueError(f"'{path}' is openpi's: import it with pirl import openpi")
    config = parse(_Config, raw, f"'{path}'")
    pipelines = read_pipelines(folder)
    modes = config.normalization_mapping if pipelines is None else pipelines.modes
    if modes.get("VISUAL", "IDENTITY") != "IDENTITY":
        raise ValueError(f"'{path}' has VISUAL {modes['VISUAL']}: images can't be normalised here")
    images = image_sizes(config.input_features)
    empty = [f"empty_camera_{i}" for i in range(min(config.empty_cameras, 16))]
    if bool(config.use_relative_actions) != (pipelines is not None and pipelines.relative is not None):
        raise ValueError(f"'{path}' says use_relative_actions {config.use_relative_actions}, {PREPROCESSOR} does not")
    kinds: dict[str, Mode] = {kind: modes.get(key, "IDENTITY") for kind, key in KINDS.items()}
    names = (PREPROCESSOR, POSTPROCESSOR, *pipelines.state_files) if pipelines else ()
    return Side(
        stack="lerobot",
        cameras=(*images, *(key for key in empty if key not in images)),
        empty_cameras=tuple(empty),
        camera_sizes=images,
        camera_names=renamed_cameras(pipelines.renamed, config.input_features) if pipelines else {},
        family=config.type,
        variants=(config.paligemma_variant, config.action_expert_variant),
        head_dim=config.head_dim,
        vision_heads=config.vision_heads,
        self_attention_every=config.self_attn_every_n_layers,
        horizon=config.chunk_size,
        execute_horizon=config.n_action_steps,
        denoise_steps=config.num_inference_steps or config.num_steps or 10,
        max_tokens=(pipelines.max_tokens if pipelines else None) or config.tokenizer_max_length,
        model_dims=(config.max_state_dim, config.max_action_dim),
        real_dims=(vector_width(config.input_features, STATE), vector_width(config.output_features, ACTION)),
        image_px=_square(config.image_resolution, config.resize_imgs_with_padding),
        prompt=pipelines.prompt if pipelines else OLDER_PROMPT.get(config.type, "pi0"),
        prompt_state_dim=(pipelines.prompt_state_dim if pipelines else None) or config.max_state_dim,
        prompt_state="robot" if _knows_relative(config, pipelines) else None,
        delta=_delta(pipelines, config.max_action_dim),
        schemes=(SCHEMES[kinds["state"]], SCHEMES[kinds["action"]]) if modes or pipelines else None,
        ranges={kind: RANGES[mode] for kind, mode in kinds.items() if mode in RANGES},
        statistics=_by_feature(dict(pipelines.statistics) if pipelines else buffers),
        files={name: plain_file(folder, name).read_bytes() for name in (CONFIG, *names)},
    )


def _by_feature(statistics: Mapping[str, Statistics]) -> dict[str, Statistics]:
    return {kind: statistics[key] for kind, key in (("state", STATE), ("action", ACTION)) if key in statistics}


def _knows_relative(config: _Config, pipelines: Pipelines | None) -> bool:
    return config.use_relative_actions is not None or (pipelines is not None and pipelines.knows_relative)


def _delta(pipelines: Pipelines | None, action_dim: int) -> tuple[bool, ...]:
    """lerobot's rule: every dimension is relative but those whose name contains an excluded word.

    As many as the model has; the robot's are the first of them.
    """
    if pipelines is None or pipelines.relative is None:
        return ()
    step = pipelines.relative
    if not step.exclude_joints or step.action_names is None:
        return (True,) * action_dim
    words = [word.lower() for word in step.exclude_joints if word]
    kept = [any(word in name.lower() for word in words) for name in step.action_names[:action_dim]]
    return tuple(not each for each in kept) + (True,) * (action_dim - len(kept))


def _square(now: list[int] | None, older: list[int] | None) -> int | None:
    resolution = older if now is None else now
    if resolution is None:
        return None
    if len(resolution) != 2 or resolution[0] != resolution[1]:
        raise ValueError(f"{CONFIG}: image resolution {resolution} must be two equal numbers")
    return resolution[0]
