"""Model sizes by preset name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Pi0Config, tiny, tiny_state

GEMMA_VOCABULARY = 257_152
"""PaliGemma's tokens"""


def small(state_dim: int = 32, action_dim: int = 32, horizon: int = 10) -> Pi0Config:
    """About 13 M parameters: 112 px images, byte tokens. A laptop serves it at camera rate."""
    return replace(
        tiny(state_dim, action_dim, horizon),
        vision=VisionConfig(image_px=112, patch_px=14, width=192, depth=6, heads=6, mlp_dim=768),
        vlm=TowerConfig(width=256, mlp_dim=1024),
        expert=TowerConfig(width=256, mlp_dim=768),
        depth=6,
        head_dim=32,
    )


def medium(state_dim: int = 32, action_dim: int = 32, horizon: int = 50) -> Pi0Config:
    """About 90 M parameters: pi0's images and horizon at a fortieth of its size."""
    return replace(
        tiny(state_dim, action_dim, horizon),
        vision=VisionConfig(image_px=224, patch_px=14, width=384, depth=12, heads=6, mlp_dim=1536),
        vlm=TowerConfig(width=512, mlp_dim=2048),
        expert=TowerConfig(width=320, mlp_dim=1280),
        depth=12,
        head_dim=64,
    )


def pi0(state_dim: int = 32, action_dim: int = 32, horizon: int = 50) -> Pi0Config:
    """openpi's pi0, 3.2 B parameters: SigLIP So400m/14, Gemma 2B, a 300 M expert."""
    return Pi0Config(
        vision=VisionConfig(image_px=224, patch_px=14, width=1152, depth=27, heads=16, mlp_dim=4304),
        vlm=TowerConfig(width=2048, mlp_dim=16_384),
        expert=TowerConfig(width=1024, mlp_dim=4096),
        depth=18,
        heads=8,
        kv_heads=1,
        head_dim=256,
        vocabulary=GEMMA_VOCABULARY,
        max_tokens=48,
        state_dim=state_dim,
        action_dim=action_dim,
        horizon=horizon,
    )


def pi05(state_dim: int = 32, action_dim: int = 32, horizon: int = 50) -> Pi0Config:
    """openpi's pi0.5: pi0's sizes, adaptive norms in the expert, and prompts that hold the state as text."""
    return replace(pi0(state_dim, action_dim, horizon), family="pi05", max_tokens=200)


PRESETS: dict[str, Callable[..., Pi0Config]] = {
    "tiny": tiny,
    "tiny_state": tiny_state,
    "small": small,
    "medium": medium,
    "pi0": pi0,
    "pi05": pi05,
}
"""by the name that a command takes"""
