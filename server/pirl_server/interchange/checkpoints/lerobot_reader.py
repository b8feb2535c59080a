"""Reads lerobot's side files: config.json, older field names included, and the two processor pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from pirl_server.interchange.checkpoints.lerobot_pipeline import POSTPROCESSOR, PREPROCESSOR, Pipelines, read_pipelines
from pirl_server.interchange.checkpoints.source_folder import parse, plain_file, read_object
from pirl_server.interchange.checkpoints.source_metadata import Side
from pirl_server.interchange.checkpoints.statistics import Statistics
from pirl_server.model.pi0.config import Family
from pirl_server.policy.processing_spec import Scheme

CONFIG = "config.json"
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
SCHEMES: dict[str, Scheme] = {"MEAN_STD": "zscore", "QUANTILES": "quantile", "MIN_MAX": "quantile", "IDENTITY": "none"}
"""min and max take the place of the quantiles: the formula is the same"""
Mode = Literal["MEAN_STD", "QUANTILES", "MIN_MAX", "IDENTITY"]


class _Feature(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    type: str
    shape: list[PositiveInt]


class _Config(BaseModel):
    """What decides the policy; training settings beside it are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore")
    type: Family
    input_features: dict[str, _Feature] = {}
    output_features: dict[str, _Feature] = {}
    normalization_mapping: dict[str, Mode] = {}
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
    use_relative_actions: bool = False
    head_dim: PositiveInt | None = None
    vision_heads: PositiveInt | None = None
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
    config = parse(_Config, raw, f"'{path}'")
    pipelines = read_pipelines(folder)
    modes = (pipelines.modes if pipelines else None) or config.normalization_mapping
    statistics = dict(pipelines.statistics) if pipelines else dict(buffers)
    images = {_camera(name): each.shape for name, each in config.input_features.items() if each.type == "VISUAL"}
    empty = [f"empty_camera_{i}" for i in range(min(config.empty_cameras, 16))]
    dims = (_dim(config.input_features, STATE), _dim(config.output_features, ACTION))
    if config.use_relative_actions != (pipelines is not None and pipelines.relative is not None):
        raise ValueError(f"'{path}' says use_relative_actions {config.use_relative_actions}, {PREPROCESSOR} does not")
    names = (PREPROCESSOR, POSTPROCESSOR, *pipelines.state_files) if pipelines else ()
    return Side(
        stack="lerobot",
        cameras=(*images, *(key for key in empty if key not in images)),
        empty_cameras=tuple(empty),
        camera_sizes={key: (shape[1], shape[2]) for key, shape in images.items() if len(shape) == 3},
        family=config.type,
        variants=(config.paligemma_variant, config.action_expert_variant),
        head_dim=config.head_dim,
        vision_heads=config.vision_heads,
        horizon=config.chunk_size,
        execute_horizon=config.n_action_steps,
        denoise_steps=config.num_inference_steps or config.num_steps or 10,
        max_tokens=config.tokenizer_max_length,
        model_dims=(config.max_state_dim, config.max_action_dim),
        real_dims=dims,
        image_px=_square(config.image_resolution, config.resize_imgs_with_padding),
        prompt=pipelines.prompt if pipelines else None,
        delta=_delta(pipelines, dims[1]),
        schemes=_schemes(modes),
        statistics={
            kind: _renamed(statistics[key], modes.get(feature))
            for kind, key, feature in (("state", STATE, "STATE"), ("action", ACTION, "ACTION"))
            if key in statistics
        },
        files={name: plain_file(folder, name).read_bytes() for name in (CONFIG, *names)},
    )


def _delta(pipelines: Pipelines | None, action_dim: int | None) -> tuple[bool, ...]:
    """lerobot's rule: every dimension is relative but those whose name contains an excluded word."""
    if pipelines is None or pipelines.relative is None:
        return ()
    step = pipelines.relative
    if action_dim is None:
        raise ValueError(f"{CONFIG} has relative actions and no width of '{ACTION}' among its output features")
    if not step.exclude_joints or step.action_names is None:
        return (True,) * action_dim
    words = [word.lower() for word in step.exclude_joints if word]
    kept = [any(word in name.lower() for word in words) for name in step.action_names[:action_dim]]
    return tuple(not each for each in kept) + (True,) * (action_dim - len(kept))


def _schemes(modes: Mapping[str, Any]) -> tuple[Scheme, Scheme] | None:
    if "STATE" not in modes or "ACTION" not in modes:
        return None
    return SCHEMES[modes["STATE"]], SCHEMES[modes["ACTION"]]


def _renamed(statistics: Statistics, mode: str | None) -> Statistics:
    if mode != "MIN_MAX" or not {"min", "max"} <= set(statistics):
        return statistics
    return {**statistics, "q01": statistics["min"], "q99": statistics["max"]}


def _camera(feature: str) -> str:
    return feature.removeprefix(IMAGES).removeprefix("observation.")


def _dim(features: Mapping[str, _Feature], name: str) -> int | None:
    if name not in features:
        return None
    if len(features[name].shape) != 1:
        raise ValueError(f"{CONFIG}: '{name}' has shape {features[name].shape}; a vector is expected")
    return features[name].shape[0]


def _square(now: list[int] | None, older: list[int] | None) -> int | None:
    resolution = older if now is None else now
    if resolution is None:
        return None
    if len(resolution) != 2 or resolution[0] != resolution[1]:
        raise ValueError(f"{CONFIG}: image resolution {resolution} must be two equal numbers")
    return resolution[0]
