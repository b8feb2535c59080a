"""Sizes in a golden file's metadata, and its weights under our names, by model family."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pirl_server.interchange.checkpoints.smolvla_names import from_lerobot
from pirl_server.interchange.checkpoints.weight_dialects import to_openpi_names, without_model
from pirl_server.interchange.checkpoints.weight_names import Weights, from_openpi
from pirl_server.model.flow_model import FlowModelConfig
from pirl_server.model.layers.norm import LLAMA_EPS
from pirl_server.model.layers.time_embedding import LONGEST_PERIOD, SHORTEST_PERIOD
from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Family, Pi0Config
from pirl_server.model.smolvla.config import SmolVlaConfig

SMOLVLA_CONSTANTS = {
    "rms_norm_eps": LLAMA_EPS, "layer_norm_eps": 1e-6, "rope_wavelength": 1e4, "min_period": SHORTEST_PERIOD,
    "max_period": LONGEST_PERIOD,
}  # fmt: skip
"""numbers that the network has; a file may state them"""


@dataclass(frozen=True)
class GoldenFamily:
    """How a family's golden files are read."""

    sizes: Callable[[Mapping[str, str], bool], FlowModelConfig]
    """of metadata, with or without cameras"""
    weights: Callable[[Weights, Any], Weights]
    """state dict of ours from theirs"""


def golden_config(metadata: Mapping[str, str], cameras: int) -> FlowModelConfig:
    """Sizes of the model in a golden file. Raises ValueError for metadata that names none, or sizes that cannot be."""
    try:
        return golden_family(metadata["family"]).sizes(metadata, cameras > 0)
    except KeyError as error:
        raise ValueError(f"metadata lack {error}") from error
    except TypeError as error:
        raise ValueError(f"metadata are not sizes: {error}") from error


def golden_family(name: str) -> GoldenFamily:
    """Raises ValueError for a family without golden files."""
    if name not in GOLDEN_FAMILIES:
        raise ValueError(f"model family '{name}' is not known; there are: {', '.join(GOLDEN_FAMILIES)}")
    return GOLDEN_FAMILIES[name]


def _pi0(metadata: Mapping[str, str], sees: bool) -> Pi0Config:
    vision = _vision(metadata) if sees else None
    return Pi0Config(vision, **_shared(metadata), family=cast(Family, metadata["family"]))


def _smolvla(metadata: Mapping[str, str], sees: bool) -> SmolVlaConfig:
    for name, ours in SMOLVLA_CONSTANTS.items():
        if name in metadata and float(metadata[name]) != ours:
            raise ValueError(f"{name} is {metadata[name]}, the network has {ours:g}")
    return SmolVlaConfig(
        _vision(metadata) if sees else None,
        pixel_shuffle=int(metadata["pixel_shuffle"]) if sees else 1,
        self_attention_every=int(metadata.get("self_attn_every_n_layers", 2)),
        **_shared(metadata),
    )


def _shared(metadata: Mapping[str, str]) -> dict[str, Any]:
    vlm, expert = (json.loads(metadata[name]) for name in ("vlm", "expert"))
    shared = {name: vlm[name] for name in ("depth", "num_heads", "num_kv_heads", "head_dim")}
    if shared != {name: expert[name] for name in shared}:
        raise ValueError(f"vlm {vlm} and expert {expert} must share depth, heads and head_dim")
    return {
        "vlm": TowerConfig(vlm["width"], vlm["mlp_dim"]),
        "expert": TowerConfig(expert["width"], expert["mlp_dim"]),
        "depth": vlm["depth"],
        "heads": vlm["num_heads"],
        "kv_heads": vlm["num_kv_heads"],
        "head_dim": vlm["head_dim"],
        "vocabulary": int(metadata["vocab"]),
        "max_tokens": int(metadata["token_len"]),
        "state_dim": int(metadata["state_dim"]),
        "action_dim": int(metadata["action_dim"]),
        "horizon": int(metadata["horizon"]),
    }


def _vision(metadata: Mapping[str, str]) -> VisionConfig:
    vit: dict[str, Any] = json.loads(metadata["vit"])
    return VisionConfig(
        image_px=int(metadata["image_px"]),
        patch_px=vit["patch_size"],
        width=vit["hidden_size"],
        depth=vit["num_hidden_layers"],
        heads=vit["num_attention_heads"],
        mlp_dim=vit["intermediate_size"],
    )


def _pi0_weights(theirs: Weights, config: Pi0Config) -> Weights:
    return from_openpi(to_openpi_names(theirs))


def _smolvla_weights(theirs: Weights, config: SmolVlaConfig) -> Weights:
    return from_lerobot(without_model(theirs), config)


PI0 = GoldenFamily(_pi0, _pi0_weights)
GOLDEN_FAMILIES = {"pi0": PI0, "pi05": PI0, "smolvla": GoldenFamily(_smolvla, _smolvla_weights)}
