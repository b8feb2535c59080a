"""Properties of our pi0 that hold for any weights: masks, caching, batching, and the ratio of unchanged weights."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from pirl_server.algorithm.flow_sde import transition
from pirl_server.algorithm.hybrid_sampler import draw_index, hybrid_sample, step_of_chain, transition_log_prob
from pirl_server.model.byte_tokens import encode_all
from pirl_server.model.layers.time_embedding import time_embedding
from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Pi0Config, tiny, tiny_state
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.prefix import Prefix

CONFIG = Pi0Config(
    vision=VisionConfig(image_px=16, patch_px=8, width=24, depth=2, heads=2, mlp_dim=48),
    vlm=TowerConfig(width=32, mlp_dim=48),
    expert=TowerConfig(width=20, mlp_dim=40),
    depth=2,
    heads=4,
    kv_heads=2,
    head_dim=12,
    vocabulary=260,
    max_tokens=24,
    state_dim=5,
    action_dim=3,
    horizon=4,
)
"""Unequal everywhere, with two key/value heads: what a model of equal sizes would hide shows here."""


def build(config: Pi0Config) -> Pi0:
    """A model whose every weight matters: norms and biases are random too."""
    torch.manual_seed(0)
    model = Pi0(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def model() -> Pi0:
    return build(CONFIG)


def inputs(batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens, token_mask = encode_all(["pick", "push the cube", "go"][:batch], CONFIG.max_tokens)
    return {
        "images": torch.rand(batch, 2, 3, 16, 16, dtype=torch.float64, generator=generator) * 2 - 1,
        "image_mask": torch.tensor([[True, False], [True, True], [False, True]])[:batch],
        "tokens_BL": tokens,
        "token_mask_BL": token_mask,
    }


def suffix(batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "state_BS": torch.randn(batch, 5, dtype=torch.float64, generator=generator),
        "x_BHD": torch.randn(batch, 4, 3, dtype=torch.float64, generator=generator),
        "t_B": torch.rand(batch, dtype=torch.float64, generator=generator),
    }


@torch.no_grad()
def test_every_input_matters(model: Pi0) -> None:
    base = model.velocity(model.encode_prefix(**inputs()), **suffix())
    for name in ("images", "tokens_BL"):
        changed = inputs()
        changed[name] = changed[name].flip(0) if name == "tokens_BL" else -changed[name]
        assert float((model.velocity(model.encode_prefix(**changed), **suffix()) - base).abs().max()) > 1e-3
    for name in ("state_BS", "x_BHD", "t_B"):
        moved = suffix()
        moved[name] = moved[name] + 0.1
        assert float((model.velocity(model.encode_prefix(**inputs()), **moved) - base).abs().max()) > 1e-3


@torch.no_grad()
def test_what_is_masked_does_not_matter(model: Pi0) -> None:
    base = model.encode_prefix(**inputs(), pooled=True)
    junk = inputs()
    junk["images"][~junk["image_mask"]] = 1.0
    junk["tokens_BL"][~junk["token_mask_BL"]] = 7
    again = model.encode_prefix(**junk, pooled=True)
    assert torch.equal(model.velocity(again, **suffix()), model.velocity(base, **suffix()))
    torch.testing.assert_close(again.pooled, base.pooled)


@torch.no_grad()
def test_padding_costs_nothing_and_a_shared_prefix_serves_a_batch() -> None:
    model = build(replace(CONFIG, vision=None))
    tokens, mask = encode_all(["push"], 24)
    prefix = model.encode_prefix(None, None, tokens, mask)
    assert prefix.mask.shape == (1, 6)
    assert prefix.count.tolist() == [6]
    shared = model.velocity(prefix, **suffix())
    repeated = model.velocity(model.encode_prefix(None, None, tokens.repeat(3, 1), mask.repeat(3, 1)), **suffix())
    torch.testing.assert_close(shared, repeated)
    assert prefix.select(torch.tensor([0, 0, 0])) is prefix


@torch.no_grad()
def test_selecting_rows_of_a_prefix(model: Pi0) -> None:
    prefix = model.encode_prefix(**inputs())
    index = torch.tensor([2, 0, 0, 1])
    chosen = {name: value[index] for name, value in suffix().items()}
    ours = model.velocity(prefix.select(index), **chosen)
    torch.testing.assert_close(ours, model.velocity(prefix, **suffix())[index], atol=1e-12, rtol=1e-9)


def test_only_the_expert_learns_from_a_detached_prefix(model: Pi0) -> None:
    vlm, expert = list(model.vlm_parameters()), list(model.expert_parameters())
    assert len(vlm) + len(expert) == len(list(model.parameters()))
    for detached in (True, False):
        model.zero_grad()
        prefix = model.encode_prefix(**inputs())
        model.velocity(prefix.detach() if detached else prefix, **suffix()).sum().backward()
        assert all(p.grad is not None for p in expert)
        assert any(p.grad is not None for p in vlm) is not detached
    model.zero_grad()


@torch.no_grad()
def test_pooled_features_and_expert_features(model: Pi0) -> None:
    assert model.encode_prefix(**inputs()).pooled is None
    prefix = model.encode_prefix(**inputs(), pooled=True)
    assert prefix.pooled is not None
    assert prefix.pooled.shape == (3, CONFIG.vlm.width)
    velocity, features = model.velocity_and_features(prefix, **suffix())
    assert features.shape == (3, 4, CONFIG.expert.width)
    assert torch.equal(model.action_out_proj(features), velocity)


def test_time_embedding() -> None:
    """Periods run from 4e-3 to 4: a turn of the fastest is invisible to it, and float32 could not tell at t = 1."""
    t = torch.tensor([0.3, 0.304], dtype=torch.float64)
    early, late = time_embedding(t, 8)
    torch.testing.assert_close(early[[0, 4]], late[[0, 4]])
    assert float((early[[3, 7]] - late[[3, 7]]).abs().max()) > 1e-3
    assert float(time_embedding(torch.tensor([1.0]), 8)[0, 3]) == pytest.approx(1.0)
    assert time_embedding(t.float(), 8).dtype == torch.float64


@pytest.mark.parametrize("config", [tiny(), tiny_state(), replace(tiny(), horizon=8, state_dim=9)])
def test_config_survives_json(config: Pi0Config) -> None:
    assert Pi0Config.from_dict(json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(TypeError):
        Pi0Config.from_dict({**asdict(config), "depht": 3})


@pytest.mark.parametrize("config", [tiny(), tiny_state()])
def test_presets_start_sane(config: Pi0Config) -> None:
    """Fresh weights: velocities of order one, small enough for a CPU."""
    torch.manual_seed(0)
    model = Pi0(config)
    tokens, mask = encode_all(["push the cube"] * 64, config.max_tokens)
    images = None if config.vision is None else torch.rand(64, 1, 3, 64, 64) * 2 - 1
    image_mask = None if config.vision is None else torch.ones(64, 1, dtype=torch.bool)
    prefix = model.encode_prefix(images, image_mask, tokens, mask)
    state, x = torch.randn(64, config.state_dim), torch.randn(64, config.horizon, config.action_dim)
    velocity = model.velocity(prefix, state, x, torch.rand(64))
    assert 0.05 < float(velocity.detach().std()) < 2.0
    assert sum(p.numel() for p in model.parameters()) < 3_000_000


@pytest.fixture(scope="module")
def served() -> tuple[Pi0, Prefix]:
    torch.manual_seed(0)
    model = Pi0(tiny_state())
    tokens, mask = encode_all(["push the cube to the goal"], model.config.max_tokens)
    with torch.no_grad():
        return model, model.encode_prefix(None, None, tokens, mask)


@torch.no_grad()
def log_ratio(served: tuple[Pi0, Prefix], split: int, nudge: float = 1.0) -> Tensor:
    """Recompute a stored batch of 64 in pieces of `split`, after scaling one weight by `nudge`."""
    model, prefix = served
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(64, model.config.state_dim, generator=generator)
    x, noise = torch.randn(2, 64, model.config.horizon, model.config.action_dim, generator=generator)
    index = draw_index(64, 4, generator)
    sde = partial(transition, noise_level=0.5)
    drawn = hybrid_sample(partial(model.velocity, prefix, state), x, noise, index, 4, sde)
    now, following = step_of_chain(drawn.chain, index)
    before = model.state_proj.weight.clone()
    model.state_proj.weight.mul_(nudge)
    pieces = [
        transition_log_prob(partial(model.velocity, prefix, state[at]), now[at], following[at], index[at], 4, sde)
        for at in torch.arange(64).split(split)
    ]
    model.state_proj.weight.copy_(before)
    return (torch.cat(pieces) - drawn.log_prob).sum(dim=(1, 2))


def test_unchanged_weights_give_a_ratio_of_one(served: tuple[Pi0, Prefix]) -> None:
    assert torch.equal(log_ratio(served, 64), torch.zeros(64))


@pytest.mark.parametrize("split", [1, 7, 32])
def test_unchanged_weights_in_other_batches_too(served: tuple[Pi0, Prefix], split: int) -> None:
    assert float(log_ratio(served, split).abs().max()) <= 1e-5


def test_changed_weights_are_noticed(served: tuple[Pi0, Prefix]) -> None:
    assert float(log_ratio(served, 64, nudge=1.01).abs().max()) > 1e-4
