"""Writes lerobot's side files from a model card: config.json and both processor pipelines with their statistics."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from safetensors.torch import save

from pirl_server.interchange.checkpoints.architectures import architecture_of_family
from pirl_server.interchange.checkpoints.lerobot_features import IMAGES
from pirl_server.interchange.checkpoints.lerobot_pipeline import (
    ABSOLUTE,
    ACTION,
    BATCH,
    DEVICE,
    NEWLINE,
    NORMALIZER,
    POSTPROCESSOR,
    PREPROCESSOR,
    RELATIVE,
    RENAME,
    SMOLVLA_NEWLINE,
    STATE,
    STATE_PROMPT,
    TOKENIZER,
    UNNORMALIZER,
)
from pirl_server.interchange.checkpoints.openpi_reader import CONFIG
from pirl_server.interchange.checkpoints.statistics import NEEDED
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processing_spec import Processing

MODES = {"zscore": "MEAN_STD", "quantile": "QUANTILES", "none": "IDENTITY"}
TOKENIZER_NAME, SMOLVLM_NAME = "google/paligemma-3b-pt-224", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
STEP = dict[str, Any]


def side_files(card: ModelCard) -> dict[str, bytes]:
    """All side files by name. Raises ValueError for relative actions of a family that has none there."""
    processing = card.processing
    assert processing is not None
    if processing.delta and processing.prompt == "smolvla":
        raise ValueError("its actions are relative to the state, which lerobot's SmolVLA does not know")
    before, after = _before(card, processing), _after(card, processing)
    files = {
        CONFIG: _json(_config(card, processing)),
        PREPROCESSOR: _json({"name": PREPROCESSOR.removesuffix(".json"), "steps": before}),
        POSTPROCESSOR: _json({"name": POSTPROCESSOR.removesuffix(".json"), "steps": after}),
    }
    statistics = save(_statistics(processing))
    return files | {step["state_file"]: statistics for step in (*before, *after) if "state_file" in step}


def _config(card: ModelCard, processing: Processing) -> dict[str, Any]:
    assert card.model.vision is not None
    px = card.model.vision.image_px
    return {
        "type": card.family,
        "n_obs_steps": 1,
        "input_features": _inputs(card, processing),
        "output_features": {ACTION: {"type": "ACTION", "shape": [card.contract.action_dim]}},
        "normalization_mapping": _modes(processing),
        "chunk_size": card.model.horizon,
        "n_action_steps": card.execute_horizon,
        "max_state_dim": card.model.state_dim,
        "max_action_dim": card.model.action_dim,
        "tokenizer_max_length": card.model.max_tokens,
        **(_smolvla_config(card, px) if card.family == "smolvla" else _pi0_config(card, processing, px)),
        **architecture_of_family(card.family).unreadable(card.model),
    }


def _pi0_config(card: ModelCard, processing: Processing, px: int) -> dict[str, Any]:
    return {
        "num_inference_steps": card.denoise_steps,
        "image_resolution": [px, px],
        "use_relative_actions": bool(processing.delta),
    }


def _smolvla_config(card: ModelCard, px: int) -> dict[str, Any]:
    """lerobot's SmolVLA has other names for steps and resolution; of its expert's width it takes the whole part."""
    model = card.model
    ratio = model.expert.width / model.vlm.width
    if int(model.vlm.width * ratio) < model.expert.width:
        ratio = math.nextafter(ratio, math.inf)
    return {
        "num_steps": card.denoise_steps,
        "resize_imgs_with_padding": [px, px],
        "num_vlm_layers": model.depth,
        "expert_width_multiplier": ratio,
        "vlm_model_name": SMOLVLM_NAME,
        "load_vlm_weights": False,
    }


def _inputs(card: ModelCard, processing: Processing) -> dict[str, Any]:
    """Features in the model's order; an absent camera keeps its place, masked out as one that is not delivered.

    SmolVLA's absent cameras take no place: with or without them it is the same network.
    """
    sizes = {camera.name: [3, camera.height, camera.width] for camera in card.contract.cameras}
    assert card.model.vision is not None
    square = [3, card.model.vision.image_px, card.model.vision.image_px]
    images = {
        IMAGES + slot.key: {"type": "VISUAL", "shape": sizes.get(slot.camera or "", square)}
        for slot in processing.slots
        if slot.camera is not None or processing.prompt != "smolvla"
    }
    return images | {STATE: {"type": "STATE", "shape": [card.contract.state_dim]}}


def _before(card: ModelCard, processing: Processing) -> list[STEP]:
    relative = _step(RELATIVE, **_relative(card, processing))
    tokenizer = _step(
        TOKENIZER, max_length=card.model.max_tokens, task_key="task", padding_side="right", padding="max_length",
        truncation=True, tokenizer_name=SMOLVLM_NAME if processing.prompt == "smolvla" else TOKENIZER_NAME,
    )  # fmt: skip
    device = _step(DEVICE, device="cpu", float_dtype=None)
    normalizer = _normalizer(NORMALIZER, card, processing)
    first = [_step(RENAME, rename_map={}), _step(BATCH)]
    if processing.prompt == "pi05":
        prompt = _step(STATE_PROMPT, max_state_dim=card.model.state_dim, task_key="task")
        steps = [*first, relative, normalizer, prompt, tokenizer, device]
    elif processing.prompt == "smolvla":
        steps = [*first, _step(SMOLVLA_NEWLINE), tokenizer, device, normalizer]
    else:
        steps = [*first, _step(NEWLINE), tokenizer, device, relative, normalizer]
    return _with_state_file(PREPROCESSOR, NORMALIZER, steps)


def _after(card: ModelCard, processing: Processing) -> list[STEP]:
    absolute = [] if processing.prompt == "smolvla" else [_step(ABSOLUTE, enabled=bool(processing.delta))]
    device = _step(DEVICE, device="cpu", float_dtype=None)
    steps = [_normalizer(UNNORMALIZER, card, processing), *absolute, device]
    return _with_state_file(POSTPROCESSOR, UNNORMALIZER, steps)


def _relative(card: ModelCard, processing: Processing) -> dict[str, Any]:
    """lerobot keeps a dimension absolute by a word in its name: each name gets its place in front to be unique."""
    names = [f"{i:02d}.{entry.name}" for i, entry in enumerate(card.contract.action)]
    kept = [name for name, relative in zip(names, processing.delta) if not relative]
    return {
        "enabled": bool(processing.delta),
        "exclude_joints": kept,
        "action_names": names if processing.delta else None,
    }


def _normalizer(name: str, card: ModelCard, processing: Processing) -> STEP:
    features = _inputs(card, processing) | {ACTION: {"type": "ACTION", "shape": [card.contract.action_dim]}}
    return _step(name, eps=1e-8, features=features, norm_map=_modes(processing))


def _modes(processing: Processing) -> dict[str, str]:
    return {
        "VISUAL": "IDENTITY", "STATE": MODES[processing.state.scheme], "ACTION": MODES[processing.action.scheme],
    }  # fmt: skip


def _statistics(processing: Processing) -> dict[str, torch.Tensor]:
    found = {}
    for feature, each in ((STATE, processing.state), (ACTION, processing.action)):
        for name, row in zip(NEEDED.get(each.scheme, ()), (each.first, each.second)):
            found[f"{feature}.{name}"] = torch.tensor(row, dtype=torch.float32)
    return found


def _with_state_file(pipeline: str, name: str, steps: list[STEP]) -> list[STEP]:
    place = next(i for i, step in enumerate(steps) if step["registry_name"] == name)
    steps[place]["state_file"] = f"{pipeline.removesuffix('.json')}_step_{place}_{name}.safetensors"
    return steps


def _step(name: str, **config: Any) -> STEP:
    return {"registry_name": name, "config": config}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()
