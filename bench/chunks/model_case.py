"""Random weights and a random scene for one of our presets, written in the layout that `peers/case.py` reads.

Names and shapes are spelled out here, apart from the model: a model that had them wrong would not load.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from peers.case import PADDED_TOKENS
from safetensors.torch import save_file

from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Pi0Config
from pirl_server.model.pi0.presets import PRESETS
from pirl_server.model.smolvla import config as smolvla
from pirl_server.model.smolvla.config import SmolVlaConfig

CAMERAS, ACTION_DIM, MIN_HORIZON = 3, 32, 10
WEIGHT_STD = 0.05

Shapes = Iterator[tuple[str, tuple[int, ...]]]
Config = Pi0Config | SmolVlaConfig
SMOLVLA = {"tiny": smolvla.tiny, "full": smolvla.smolvla}
"""sizes of SmolVLA: ours for tests, and the one that lerobot has"""


def sized(preset: str, family: str) -> Config:
    """The preset with a full-size action vector and prompt, and chunks no shorter than a robot plays."""
    make = SMOLVLA[preset] if family == "smolvla" else PRESETS[preset]
    config = make(action_dim=ACTION_DIM)
    horizon = max(config.horizon, MIN_HORIZON)
    return dataclasses.replace(config, family=family, horizon=horizon, max_tokens=PADDED_TOKENS[family])  # type: ignore[arg-type]


def write_case(path: Path, config: Config) -> int:
    """Write weights N(0, 0.05^2), adaRMS and biases included, and a scene; returns the number of parameters."""
    assert config.vision is not None
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"weights/{name}": WEIGHT_STD * torch.randn(shape, generator=generator) + _mean(config, name)
        for name, shape in shapes(config)
    }
    parameters = sum(weight.numel() for weight in tensors.values())
    for camera in range(CAMERAS):
        shape = (1, 3, config.vision.image_px, config.vision.image_px)
        tensors[f"in/image_{camera}"] = 2.0 * torch.rand(shape, generator=generator) - 1.0
    tensors["in/tokens"] = torch.randint(1, config.vocabulary, (1, config.max_tokens), generator=generator)
    tensors["in/state"] = torch.randn((1, config.state_dim), generator=generator)
    tensors["in/noise"] = torch.randn((1, config.horizon, config.action_dim), generator=generator)
    save_file(tensors, str(path), metadata=metadata(config))
    return parameters


def _mean(config: Config, name: str) -> float:
    """SmolVLA's norms multiply by their weight: around 0 they would hide everything behind them."""
    return float(isinstance(config, SmolVlaConfig) and re.search(r"norm\d?\.weight", name) is not None)


def metadata(config: Config) -> dict[str, str]:
    """Sizes, as `pirl_server.interchange.parity.golden` reads them."""
    vision = config.vision
    assert vision is not None
    shared = {
        "depth": config.depth, "num_heads": config.heads, "num_kv_heads": config.kv_heads, "head_dim": config.head_dim
    }  # fmt: skip
    vit = {
        "hidden_size": vision.width, "intermediate_size": vision.mlp_dim, "num_hidden_layers": vision.depth,
        "num_attention_heads": vision.heads, "patch_size": vision.patch_px,
    }  # fmt: skip
    numbers = {
        "horizon": config.horizon, "vocab": config.vocabulary, "image_px": vision.image_px,
        "token_len": config.max_tokens, "state_dim": config.state_dim, "action_dim": config.action_dim,
    }  # fmt: skip
    if isinstance(config, SmolVlaConfig):
        numbers |= {"pixel_shuffle": config.pixel_shuffle, "self_attn_every_n_layers": config.self_attention_every}
    return {
        "family": config.family,
        **{name: str(number) for name, number in numbers.items()},
        "vlm": json.dumps({**dataclasses.asdict(config.vlm), **shared}),
        "expert": json.dumps({**dataclasses.asdict(config.expert), **shared}),
        "vit": json.dumps(vit),
    }


def shapes(config: Config) -> Shapes:
    """Every weight's name and shape in openpi's state dict, or lerobot's."""
    return smolvla_shapes(config) if isinstance(config, SmolVlaConfig) else pi0_shapes(config)


def smolvla_shapes(config: SmolVlaConfig) -> Shapes:
    """Of lerobot's VLAFlowMatching, without the language head, which it never evaluates."""
    assert config.vision is not None
    root, width = "vlm_with_expert.", config.expert.width
    vlm, keys = root + "vlm.model.", config.kv_heads * config.head_dim
    patches = config.vision.width * config.pixel_shuffle**2
    yield from _vision(config.vision, vlm + "vision_model.")
    yield vlm + "connector.modality_projection.proj.weight", (config.vlm.width, patches)
    yield vlm + "text_model.embed_tokens.weight", (config.vocabulary, config.vlm.width)
    yield from _tower(config, config.vlm, vlm + "text_model.", adaptive=False)
    for name, shape in _tower(config, config.expert, root + "lm_expert.", adaptive=False):
        layer = re.search(r"layers\.(\d+)\.self_attn\.[kv]_proj", name)
        crosses = layer is not None and int(layer[1]) % config.self_attention_every > 0
        yield name, (keys, keys) if crosses else shape
    yield from _linear("state_proj", config.state_dim, config.vlm.width)
    yield from _linear("action_in_proj", config.action_dim, width)
    yield from _linear("action_out_proj", width, config.action_dim)
    yield from _linear("action_time_mlp_in", 2 * width, width)
    yield from _linear("action_time_mlp_out", width, width)


def pi0_shapes(config: Pi0Config) -> Shapes:
    """Of openpi's state dict."""
    assert config.vision is not None
    language = "paligemma_with_expert.paligemma.model."
    yield from _vision(config.vision, language + "vision_tower.vision_model.")
    yield from _linear(language + "multi_modal_projector.linear", config.vision.width, config.vlm.width)
    yield language + "language_model.embed_tokens.weight", (config.vocabulary, config.vlm.width)
    yield from _tower(config, config.vlm, language + "language_model.", adaptive=False)
    adaptive = config.family == "pi05"
    yield from _tower(config, config.expert, "paligemma_with_expert.gemma_expert.model.", adaptive=adaptive)
    width = config.expert.width
    yield from _linear("action_in_proj", config.action_dim, width)
    yield from _linear("action_out_proj", width, config.action_dim)
    mlp = "time_mlp" if adaptive else "action_time_mlp"
    yield from _linear(mlp + "_in", width if adaptive else 2 * width, width)
    yield from _linear(mlp + "_out", width, width)
    if not adaptive:
        yield from _linear("state_proj", config.state_dim, width)


def _linear(name: str, fan_in: int, fan_out: int) -> Shapes:
    yield f"{name}.weight", (fan_out, fan_in)
    yield f"{name}.bias", (fan_out,)


def _vision(config: VisionConfig, tower: str) -> Shapes:
    width, patch_px = config.width, config.patch_px
    yield tower + "embeddings.patch_embedding.weight", (width, 3, patch_px, patch_px)
    yield tower + "embeddings.patch_embedding.bias", (width,)
    yield tower + "embeddings.position_embedding.weight", (config.patches, width)
    norms = [tower + "post_layernorm"]
    for layer in (f"{tower}encoder.layers.{i}." for i in range(config.depth)):
        norms += [layer + "layer_norm1", layer + "layer_norm2"]
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}self_attn.{part}", width, width)
        yield from _linear(layer + "mlp.fc1", width, config.mlp_dim)
        yield from _linear(layer + "mlp.fc2", config.mlp_dim, width)
    for norm in norms:
        yield norm + ".weight", (width,)
        yield norm + ".bias", (width,)


def _tower(config: Config, tower: TowerConfig, prefix: str, *, adaptive: bool) -> Shapes:
    width, mlp_dim = tower.width, tower.mlp_dim
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    norms = [prefix + "norm"]
    for layer in (f"{prefix}layers.{i}." for i in range(config.depth)):
        norms += [layer + "input_layernorm", layer + "post_attention_layernorm"]
        yield layer + "self_attn.q_proj.weight", (query, width)
        yield layer + "self_attn.k_proj.weight", (key, width)
        yield layer + "self_attn.v_proj.weight", (key, width)
        yield layer + "self_attn.o_proj.weight", (width, query)
        yield layer + "mlp.gate_proj.weight", (mlp_dim, width)
        yield layer + "mlp.up_proj.weight", (mlp_dim, width)
        yield layer + "mlp.down_proj.weight", (width, mlp_dim)
    for norm in norms:
        if adaptive:
            yield from _linear(norm + ".dense", width, 3 * width)
        else:
            yield norm + ".weight", (width,)
