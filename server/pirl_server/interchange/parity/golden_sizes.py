"""Sizes of a golden file's model, from its metadata: strings, some of them JSON objects in transformers' words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pirl_server.model.pi0.config import Family, Pi0Config, TowerConfig, VisionConfig


def golden_config(metadata: Mapping[str, str], cameras: int) -> Pi0Config:
    """Sizes of the model in a golden file. Raises ValueError for metadata that names none, or sizes that cannot be."""
    try:
        vlm, expert = (json.loads(metadata[name]) for name in ("vlm", "expert"))
        shared = {name: vlm[name] for name in ("depth", "num_heads", "num_kv_heads", "head_dim")}
        if shared != {name: expert[name] for name in shared}:
            raise ValueError(f"vlm {vlm} and expert {expert} must share depth, heads and head_dim")
        return Pi0Config(
            vision=_vision(metadata) if cameras else None,
            vlm=TowerConfig(vlm["width"], vlm["mlp_dim"]),
            expert=TowerConfig(expert["width"], expert["mlp_dim"]),
            depth=vlm["depth"],
            heads=vlm["num_heads"],
            kv_heads=vlm["num_kv_heads"],
            head_dim=vlm["head_dim"],
            vocabulary=int(metadata["vocab"]),
            max_tokens=int(metadata["token_len"]),
            state_dim=int(metadata["state_dim"]),
            action_dim=int(metadata["action_dim"]),
            horizon=int(metadata["horizon"]),
            family=cast(Family, metadata["family"]),
        )
    except KeyError as error:
        raise ValueError(f"metadata lack {error}") from error
    except TypeError as error:
        raise ValueError(f"metadata are not sizes: {error}") from error


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
