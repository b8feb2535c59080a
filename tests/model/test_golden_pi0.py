"""Our pi0 against the numbers of an independent implementation (recorded in golden/pi0_tiny.safetensors' metadata)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from pirl_server.algorithm.flow import euler_chain, flow_matching_loss, interpolate
from pirl_server.model.config import Pi0Config, TowerConfig, VisionConfig
from pirl_server.model.gemma import KeyValue
from pirl_server.model.keymap import from_openpi
from pirl_server.model.pi0 import Pi0
from pirl_server.model.prefix import Prefix

GOLDEN = Path(__file__).parent / "golden" / "pi0_tiny.safetensors"
SAMPLE_TOLERANCE, LOSS_TOLERANCE, BROKEN = 1e-5, 5e-5, 1e-3


def golden_config(meta: dict[str, str]) -> Pi0Config:
    vit, vlm, expert = (json.loads(meta[name]) for name in ("vit", "vlm", "expert"))
    return Pi0Config(
        vision=VisionConfig(
            image_px=int(meta["image_px"]),
            patch_px=vit["patch_size"],
            width=vit["hidden_size"],
            depth=vit["num_hidden_layers"],
            heads=vit["num_attention_heads"],
            mlp_dim=vit["intermediate_size"],
        ),
        vlm=TowerConfig(vlm["width"], vlm["mlp_dim"]),
        expert=TowerConfig(expert["width"], expert["mlp_dim"]),
        depth=vlm["depth"],
        heads=vlm["num_heads"],
        kv_heads=vlm["num_kv_heads"],
        head_dim=vlm["head_dim"],
        vocabulary=int(meta["vocab"]),
        max_tokens=int(meta["token_len"]),
        state_dim=int(meta["state_dim"]),
        action_dim=int(meta["action_dim"]),
        horizon=int(meta["horizon"]),
    )


@pytest.fixture(scope="module")
def golden() -> tuple[Pi0, dict[str, Tensor]]:
    with safe_open(GOLDEN, "pt") as file:
        config = golden_config(file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    model = Pi0(config)
    model.load_state_dict(from_openpi({k.removeprefix("weights/"): v for k, v in tensors.items() if "weights/" in k}))
    return model, tensors


def encode(model: Pi0, data: dict[str, Tensor]) -> Prefix:
    images = torch.stack([data[f"in/image_{camera}"] for camera in range(3)], dim=1)
    return model.encode_prefix(images, data["in/image_mask"], data["in/tokens"], data["in/token_mask"])


@torch.no_grad()
def sample_error(model: Pi0, data: dict[str, Tensor], steps: int) -> float:
    velocity = partial(model.velocity, encode(model, data), data["in/state"])
    actions = euler_chain(velocity, data["in/noise"], steps)[:, -1]
    return float((actions - data[f"out/sample_{steps}"]).abs().max())


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_samples_match(golden: tuple[Pi0, dict[str, Tensor]], steps: int) -> None:
    assert sample_error(*golden, steps) <= SAMPLE_TOLERANCE


@torch.no_grad()
def test_loss_matches(golden: tuple[Pi0, dict[str, Tensor]]) -> None:
    model, data = golden
    x = interpolate(data["in/actions"], data["in/noise"], data["in/time"])
    v = model.velocity(encode(model, data), data["in/state"], x, data["in/time"])
    loss = flow_matching_loss(v, data["in/actions"], data["in/noise"])
    assert float((loss - data["out/loss"]).abs().max()) <= LOSS_TOLERANCE


def test_unscaled_text_embedding_is_noticed(
    golden: tuple[Pi0, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = golden
    monkeypatch.setattr(model.embed_tokens.weight, "data", model.embed_tokens.weight / model.config.vlm.width**0.5)
    assert sample_error(model, data, 4) > BROKEN


def test_positions_that_count_padding_are_noticed(
    golden: tuple[Pi0, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = golden
    forward = model.language.forward

    def counted(x: Tensor, mask: Tensor, position: Tensor) -> tuple[Tensor, list[KeyValue]]:
        return forward(x, mask, torch.arange(position.shape[1])[None])

    monkeypatch.setattr(model.language, "forward", counted)
    assert sample_error(model, data, 4) > BROKEN
