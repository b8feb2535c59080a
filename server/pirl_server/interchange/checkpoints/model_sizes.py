"""Model sizes from the shapes of the weights; the rest comes from config.json or a known variant.

How a projection of 2048 splits into heads is no part of any shape: a wrong split would load and run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pirl_server.interchange.checkpoints.source_metadata import Side
from pirl_server.interchange.checkpoints.tensor_folder import Layout
from pirl_server.interchange.checkpoints.weight_dialects import EMBEDDING
from pirl_server.interchange.checkpoints.weight_names import EXPERT, TEXT, VISION
from pirl_server.model.flow_model import FlowModelConfig
from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Family, Pi0Config

STATE, ADAPTIVE = "state_proj.weight", EXPERT + "norm.dense.weight"
VISION_HEADS = {768: 12, 1152: 16}
"""by width: SigLIP base and So400m"""
MAX_TOKENS = {"pi0": 48, "pi05": 200}


@dataclass(frozen=True)
class Variant:
    """One of openpi's named Gemma sizes, all of 8 query heads and 1 key/value head."""

    width: int
    depth: int
    mlp_dim: int
    head_dim: int


VARIANTS = {
    "gemma_2b": Variant(2048, 18, 16384, 256),
    "gemma_300m": Variant(1024, 18, 4096, 256),
    "dummy": Variant(64, 4, 128, 16),
}


def family_of(layouts: Mapping[str, Layout], side: Side) -> Family:
    """pi0 or pi0.5 by its keys. Raises ValueError when they or config.json disagree."""
    has_state, adaptive = STATE in layouts, ADAPTIVE in layouts
    if has_state == adaptive:
        both = "both" if has_state else "neither"
        raise ValueError(f"'{STATE}' makes a pi0, '{ADAPTIVE}' a pi0.5: {both} of them is here")
    family: Family = "pi0" if has_state else "pi05"
    if side.family not in (None, family):
        key = STATE if has_state else ADAPTIVE
        raise ValueError(f"config.json says {side.family}, the weights are {family}: '{key}' is among them")
    return family


def sizes(layouts: Mapping[str, Layout], side: Side) -> Pi0Config:
    """The model's configuration. Raises ValueError for a tensor that is missing, of a wrong rank, or undecidable.

    `layouts` is by canonical name. The result is a claim: the caller compares every shape with it.
    """
    if side.horizon is None:
        raise ValueError("config.json has no chunk length: give it with --horizon N")
    family = family_of(layouts, side)
    language, expert = _tower(layouts, TEXT), _tower(layouts, EXPERT)
    head_dim = _head_dim((language, expert), side, (depth_of(layouts, TEXT), depth_of(layouts, EXPERT)))
    queries = shape_of(layouts, TEXT + "layers.0.self_attn.q_proj.weight", 2)[0]
    keys = shape_of(layouts, TEXT + "layers.0.self_attn.k_proj.weight", 2)[0]
    if queries % head_dim or keys % head_dim or queries % keys:
        raise ValueError(f"q_proj of {queries} and k_proj of {keys} don't split into heads of {head_dim}")
    action_dim = shape_of(layouts, "action_in_proj.weight", 2)[1]
    state_dim = shape_of(layouts, STATE, 2)[1] if family == "pi0" else (side.model_dims[0] or action_dim)
    config = Pi0Config(
        vision=vision_of(layouts, side),
        vlm=language,
        expert=expert,
        depth=depth_of(layouts, TEXT),
        heads=queries // head_dim,
        kv_heads=keys // head_dim,
        head_dim=head_dim,
        vocabulary=shape_of(layouts, EMBEDDING, 2)[0],
        max_tokens=side.max_tokens or MAX_TOKENS[family],
        state_dim=state_dim,
        action_dim=action_dim,
        horizon=side.horizon,
        family=family,
    )
    _compare(side, config)
    return config


def unreadable(config: FlowModelConfig) -> dict[str, str | int]:
    """What config.json must say of a model because its weights' shapes don't: variants, or head sizes."""
    assert isinstance(config, Pi0Config), "both libraries' layouts are of pi0 and pi0.5"
    named = {
        key: name
        for key, tower in (("paligemma_variant", config.vlm), ("action_expert_variant", config.expert))
        for name, each in VARIANTS.items()
        if each == Variant(tower.width, config.depth, tower.mlp_dim, config.head_dim)
    }
    assert config.vision is not None
    vision = (
        {} if VISION_HEADS.get(config.vision.width) == config.vision.heads else {"vision_heads": config.vision.heads}
    )
    return {**(named if len(named) == 2 else {"head_dim": config.head_dim}), **vision}


def _compare(side: Side, config: Pi0Config) -> None:
    """Where config.json claims a size, the weights must have it."""
    claims = {"state": (side.model_dims[0], config.state_dim), "action": (side.model_dims[1], config.action_dim)}
    for name, (claimed, found) in claims.items():
        if claimed not in (None, found):
            raise ValueError(f"config.json has a model of {claimed} {name} dimensions, the weights have {found}")
    assert config.vision is not None
    if side.image_px not in (None, config.vision.image_px):
        raise ValueError(f"config.json says images of {side.image_px} px, the weights are for {config.vision.image_px}")


def _tower(layouts: Mapping[str, Layout], tower: str) -> TowerConfig:
    mlp_dim, width = shape_of(layouts, tower + "layers.0.mlp.gate_proj.weight", 2)
    return TowerConfig(width, mlp_dim)


def _head_dim(towers: tuple[TowerConfig, TowerConfig], side: Side, depths: tuple[int, int]) -> int:
    """What config.json says, or the head size of the variant that it names or that both towers have."""
    if side.head_dim is not None:
        return side.head_dim
    found = set()
    for tower, depth, named in zip(towers, depths, side.variants):
        name = None if named is None else named.removesuffix("_lora")
        if name is not None and name not in VARIANTS:
            raise ValueError(f"variant '{named}' in config.json is not known; there are: {', '.join(VARIANTS)}")
        for variant in VARIANTS.values() if name is None else [VARIANTS[name]]:
            if (variant.width, variant.depth, variant.mlp_dim) == (tower.width, depth, tower.mlp_dim):
                found.add(variant.head_dim)
                break
        else:
            raise ValueError(
                f"a tower of width {tower.width}, depth {depth} and MLP {tower.mlp_dim} is not {named or 'known'}: "
                'write its "head_dim" into config.json, it can\'t be read off the weights'
            )
    if len(found) != 1:
        raise ValueError(f"the two towers have heads of {sorted(found)}; they must share their size")
    return found.pop()


def vision_of(layouts: Mapping[str, Layout], side: Side, tower: str = VISION) -> VisionConfig:
    """The vision tower whose names start so. Raises ValueError for unknown heads and images that are not square."""
    width, _, patch_px, _ = shape_of(layouts, tower + "embeddings.patch_embedding.weight", 4)
    patches = shape_of(layouts, tower + "embeddings.position_embedding.weight", 2)[0]
    heads = side.vision_heads or VISION_HEADS.get(width)
    if heads is None or heads < 1 or width % heads:
        raise ValueError(
            f"how many heads a vision tower of width {width} has can't be read off the weights: write "
            '"vision_heads" into config.json, a number that divides the width'
        )
    side_patches = math.isqrt(patches)
    if side_patches**2 != patches:
        raise ValueError(f"'{tower}embeddings.position_embedding.weight' has {patches} rows: images must be square")
    depth = depth_of(layouts, tower + "encoder.")
    mlp_dim = shape_of(layouts, tower + "encoder.layers.0.mlp.fc1.weight", 2)[0]
    return VisionConfig(side_patches * patch_px, patch_px, width, depth, heads, mlp_dim)


def depth_of(layouts: Mapping[str, Layout], tower: str) -> int:
    """Layers of a tower whose names start so. They are counted, not believed: a number in a name may be anything."""
    pattern = re.compile(re.escape(tower) + r"layers\.(\d+)\.")
    return len({match[1] for name in layouts if (match := pattern.match(name))})


def shape_of(layouts: Mapping[str, Layout], name: str, rank: int) -> tuple[int, ...]:
    """Of a tensor that must have so many dimensions. Raises ValueError for one that is missing or has others."""
    if name not in layouts:
        raise ValueError(f"tensor '{name}' is missing")
    if len(layouts[name].shape) != rank:
        raise ValueError(f"tensor '{name}' has shape {list(layouts[name].shape)}; {rank} dimensions are expected")
    return layouts[name].shape
