"""Ours equals the plain description at sizes, masks and prompts drawn at random; the description equals the goldens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scenes import FAMILIES, Batch, described, draw_batch, draw_config, draw_model, their_names
from torch import Tensor

from pirl_server.interchange.parity.golden import load_golden
from pirl_server.model.flow_model import FlowModel


def by_description(model: FlowModel, batch: Batch) -> Tensor:
    return described(their_names(model.state_dict(), model.config), model.config, batch)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_description_equals_the_goldens(family: str) -> None:
    golden = load_golden(Path(__file__).parent / "golden" / f"{family}_tiny.safetensors")
    images, image_mask, tokens, token_mask = golden.prefix.values()
    state = torch.zeros(len(golden.noise), 1) if golden.state is None else golden.state
    t = golden.time[:, None, None]
    x = t * golden.noise + (1.0 - t) * golden.actions
    batch = Batch(images, image_mask, tokens, token_mask, state, x, golden.time)  # type: ignore[arg-type]
    loss = (by_description(golden.model, batch) - (golden.noise - golden.actions)) ** 2
    assert float((loss - golden.loss).abs().max()) <= 5e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_ours_equals_the_description(seed: int, family: str) -> None:
    """By the velocity that training uses, at a time per row, and by the denoiser, at one time for all."""
    config = draw_config(seed, family)
    model, batch = draw_model(config, seed), draw_batch(config, seed, batch=1 + seed % 3, cameras=1 + seed % 4)
    for static in (False, True):
        prefix = model.encode_prefix(*batch.prefix(), static=static)
        ours = model.velocity(prefix, batch.state, batch.x, batch.t)
        torch.testing.assert_close(ours, by_description(model, batch), atol=1e-10, rtol=1e-8)
    denoiser = model.denoiser(prefix, batch.state, 3)
    for k in (0, 2):
        t = torch.full_like(batch.t, 1.0 - k / 3)
        again = denoiser(batch.x, t)
        torch.testing.assert_close(again, by_description(model, replace(batch, t=t)), atol=1e-10, rtol=1e-8)
