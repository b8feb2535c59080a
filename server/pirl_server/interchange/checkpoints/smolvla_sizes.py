"""A SmolVLA's sizes from the shapes of its weights; the rest comes from config.json or a known backbone.

How a projection splits into heads is no part of any shape: a wrong split would load and run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pirl_server.interchange.checkpoints.model_sizes import VISION_HEADS, depth_of, shape_of, vision_of
from pirl_server.interchange.checkpoints.smolvla_names import CONNECTOR, EMBEDDING, EXPERT, TEXT, VISION
from pirl_server.interchange.checkpoints.source_metadata import Side
from pirl_server.interchange.checkpoints.tensor_folder import Layout
from pirl_server.model.layers.tower_config import TowerConfig
from pirl_server.model.smolvla.config import SmolVlaConfig

HEAD_DIM = {576: 64, 960: 64, 2048: 64}
"""by width of the language model: SmolVLM2's 256 M, 500 M and 2.2 B"""
MAX_TOKENS = 48


def sizes(layouts: Mapping[str, Layout], side: Side) -> SmolVlaConfig:
    """The model's configuration. Raises ValueError for a tensor that is missing, of a wrong rank, or undecidable.

    `layouts` is by canonical name. The result is a claim: the caller compares every shape with it.
    """
    if side.horizon is None:
        raise ValueError("config.json has no chunk length: give it with --horizon N")
    if side.family not in (None, "smolvla"):
        raise ValueError(f"config.json says {side.family}, the weights are smolvla: '{EMBEDDING}' is among them")
    language, expert = _tower(layouts, TEXT), _tower(layouts, EXPERT)
    depth, deep = depth_of(layouts, TEXT), depth_of(layouts, EXPERT)
    if depth != deep:
        raise ValueError(f"the language model has {depth} layers, the expert {deep}: they must be as many")
    vision = vision_of(layouts, side, VISION)
    head_dim = side.head_dim or HEAD_DIM.get(language.width)
    queries, keys = (shape_of(layouts, f"{TEXT}layers.0.self_attn.{part}_proj.weight", 2)[0] for part in "qk")
    if head_dim is None:
        raise ValueError(
            f'a language model of width {language.width} is not known: write its "head_dim" into config.json, it can\'t'
            " be read off the weights"
        )
    if queries % head_dim or keys % head_dim or queries % keys:
        raise ValueError(f"q_proj of {queries} and k_proj of {keys} don't split into heads of {head_dim}")
    config = SmolVlaConfig(
        vision=vision,
        pixel_shuffle=_pixel_shuffle(layouts, vision.width),
        vlm=language,
        expert=expert,
        depth=depth,
        heads=queries // head_dim,
        kv_heads=keys // head_dim,
        head_dim=head_dim,
        vocabulary=shape_of(layouts, EMBEDDING, 2)[0],
        max_tokens=side.max_tokens or MAX_TOKENS,
        state_dim=shape_of(layouts, "state_proj.weight", 2)[1],
        action_dim=shape_of(layouts, "action_in_proj.weight", 2)[1],
        horizon=side.horizon,
        self_attention_every=side.self_attention_every,
    )
    _compare(side, config)
    return config


def unreadable(config: SmolVlaConfig) -> dict[str, str | int]:
    """What config.json must say of a model because its weights' shapes don't: heads, and kinds of attention."""
    assert config.vision is not None
    found: dict[str, str | int] = {"self_attn_every_n_layers": config.self_attention_every}
    if HEAD_DIM.get(config.vlm.width) != config.head_dim:
        found["head_dim"] = config.head_dim
    if VISION_HEADS.get(config.vision.width) != config.vision.heads:
        found["vision_heads"] = config.vision.heads
    return found


def _compare(side: Side, config: SmolVlaConfig) -> None:
    """Where config.json claims a size, the weights must have it."""
    for name, claimed, found in zip(("state", "action"), side.model_dims, (config.state_dim, config.action_dim)):
        if claimed not in (None, found):
            raise ValueError(f"config.json has a model of {claimed} {name} dimensions, the weights have {found}")
    assert config.vision is not None
    if side.image_px not in (None, config.vision.image_px):
        raise ValueError(f"config.json says images of {side.image_px} px, the weights are for {config.vision.image_px}")


def _tower(layouts: Mapping[str, Layout], tower: str) -> TowerConfig:
    mlp_dim, width = shape_of(layouts, tower + "layers.0.mlp.gate_proj.weight", 2)
    return TowerConfig(width, mlp_dim)


def _pixel_shuffle(layouts: Mapping[str, Layout], width: int) -> int:
    """Side of the squares of patches that the connector takes."""
    inputs = shape_of(layouts, CONNECTOR + "weight", 2)[1]
    factor = math.isqrt(inputs // width)
    if factor**2 * width != inputs:
        raise ValueError(f"'{CONNECTOR}weight' takes {inputs} numbers, which are no square of patches {width} wide")
    return factor
