"""Ours equals the plain description at sizes, masks and prompts drawn at random; the description equals the goldens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference_pi0 import Row, Sizes, velocity
from scenes import Batch, draw_batch, draw_config, draw_model
from torch import Tensor

from pirl_server.model.config import Family, Pi0Config
from pirl_server.model.golden import load_golden
from pirl_server.model.keymap import to_openpi
from pirl_server.model.pi0 import Pi0

FAMILIES: tuple[Family, ...] = ("pi0", "pi05")


def by_description(model: Pi0, config: Pi0Config, batch: Batch) -> Tensor:
    """Velocities, row by row."""
    assert config.vision is not None
    vision = config.vision
    sizes = Sizes(
        config.depth, config.heads, config.kv_heads, config.head_dim, vision.depth, vision.heads, vision.patch_px
    )
    weights = {key: value.double() for key, value in to_openpi(model.state_dict()).items()}
    rows = [
        Row(
            images=list(batch.images[i].double()),
            present=batch.image_mask[i].tolist(),
            tokens=batch.tokens[i].tolist(),
            real=batch.token_mask[i].tolist(),
            state=batch.state[i].double() if config.family == "pi0" else None,
            x=batch.x[i].double(),
            t=float(batch.t[i]),
        )
        for i in range(len(batch.x))
    ]
    return torch.stack([velocity(weights, sizes, row) for row in rows])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_description_equals_the_goldens(family: Family) -> None:
    golden = load_golden(Path(__file__).parent / "golden" / f"{family}_tiny.safetensors")
    images, image_mask, tokens, token_mask = golden.prefix.values()
    state = torch.zeros(len(golden.noise), 1) if golden.state is None else golden.state
    t = golden.time[:, None, None]
    x = t * golden.noise + (1.0 - t) * golden.actions
    batch = Batch(images, image_mask, tokens, token_mask, state, x, golden.time)  # type: ignore[arg-type]
    loss = (by_description(golden.model, golden.model.config, batch) - (golden.noise - golden.actions)) ** 2
    assert float((loss - golden.loss).abs().max()) <= 5e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_ours_equals_the_description(seed: int, family: Family) -> None:
    """By the velocity that training uses, at a time per row, and by the denoiser, at one time for all."""
    config = draw_config(seed, family)
    model, batch = draw_model(config, seed), draw_batch(config, seed, batch=1 + seed % 3, cameras=1 + seed % 4)
    for static in (False, True):
        prefix = model.encode_prefix(*batch.prefix(), static=static)
        ours = model.velocity(prefix, batch.state, batch.x, batch.t)
        torch.testing.assert_close(ours, by_description(model, config, batch), atol=1e-10, rtol=1e-8)
    denoiser = model.denoiser(prefix, batch.state, 3)
    for k in (0, 2):
        t = torch.full_like(batch.t, 1.0 - k / 3)
        again = denoiser(batch.x, t)
        torch.testing.assert_close(again, by_description(model, config, replace(batch, t=t)), atol=1e-10, rtol=1e-8)
