"""A pretrained policy of a few thousand parameters, fed as openpi's are: two cameras, three slots, padded actions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pirl_contract import Camera, Contract, Field, Observation
from pirl_server.model import families
from pirl_server.model.byte_tokens import VOCABULARY
from pirl_server.model.flow_model import FlowModel, FlowModelConfig
from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Pi0Config
from pirl_server.model.smolvla.config import SmolVlaConfig
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processing_spec import CameraSlot, Normalisation, Processing, PromptFormat, TokenizerFile

CONTRACT = Contract(
    robot="small",
    cameras=(Camera("wrist", 14, 14), Camera("front", 20, 30)),
    state=(Field("j1", "rad"), Field("j2", "rad"), Field("j3", "rad"), Field("grip", "m")),
    action=(Field("j1", "rad"), Field("j2", "rad"), Field("grip", "m")),
    rate_hz=20.0,
)
MEAN, STD = (0.1, -0.2, 0.3, 0.02), (0.5, 1.0, 0.25, 0.01)
Q01, Q99 = (-0.1, -0.2, 0.0), (0.1, 0.3, 0.04)
DELTA = (True, True, False)


FAMILY_OF = {"pi0": "pi0", "pi05": "pi05", "pi05_without_state": "pi05", "smolvla": "smolvla"}


def small_model(family: str = "pi0", max_tokens: int = 64) -> FlowModelConfig:
    vision, vlm, expert = (
        VisionConfig(14, 7, 16, depth=1, heads=2, mlp_dim=32),
        TowerConfig(16, 32),
        TowerConfig(24, 32),
    )
    sizes: dict[str, Any] = {
        "depth": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "vocabulary": VOCABULARY, "max_tokens": max_tokens,
        "state_dim": 6, "action_dim": 5, "horizon": 3,
    }  # fmt: skip
    if family == "smolvla":
        return SmolVlaConfig(vision, 2, vlm, expert, **sizes)
    return Pi0Config(vision, vlm, expert, **sizes, family=family)  # type: ignore[arg-type]


def small_processing(prompt: PromptFormat = "pi0", **changes: Any) -> Processing:
    how = Processing(
        prompt=prompt,
        clean_prompt=True,
        tokenizer=TokenizerFile("bytes", VOCABULARY),
        slots=(CameraSlot("base_0_rgb", "front"), CameraSlot("left_wrist_0_rgb", None), CameraSlot("right", "wrist")),
        resize="pil",
        pad=-1,
        state=Normalisation("zscore", "openpi", MEAN, STD),
        action=Normalisation("quantile", "openpi", Q01, Q99),
        delta=DELTA,
    )
    return replace(how, **changes)


def small_card(prompt: PromptFormat = "pi0", how: dict[str, Any] | None = None, **changes: Any) -> ModelCard:
    family = FAMILY_OF[prompt]
    card = ModelCard(
        name="small", contract=CONTRACT, model=small_model(family), features="pretrained", action_scale=(),
        execute_horizon=2, denoise_steps=4, noise_level=0.5, instructions=("push_it",), task="push", family=family,
        processing=small_processing(prompt, **(how or {})),
    )  # fmt: skip
    return replace(card, **changes)


def small_weights(card: ModelCard, seed: int = 0) -> FlowModel:
    """A model without a parameter at 0: adaptive norms at their initial zeros would hide everything behind them."""
    generator, model = torch.Generator().manual_seed(seed), families.build(card.model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


def small_policy(prompt: PromptFormat = "pi0", how: dict[str, Any] | None = None, **changes: Any) -> FlowPolicy:
    card = small_card(prompt, how, **changes)
    return FlowPolicy(card, small_weights(card), "small")


def small_observation(seed: int = 0, **changes: Any) -> Observation:
    draw = np.random.default_rng(seed)
    images = {each.name: draw.integers(0, 256, (each.height, each.width, 3), np.uint8) for each in CONTRACT.cameras}
    state = (np.array(MEAN) + np.array(STD) * draw.uniform(-0.9, 0.9, 4)).astype(np.float32)
    return replace(Observation(images, state, "push_it", "arm", 1), **changes)
