"""SmolVLA against the numbers of lerobot's own, part by part, and one control for every trap in its description."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scenes import draw_batch, draw_config, draw_model
from torch import Tensor

from pirl_server.interchange.parity.golden import Golden, load_golden
from pirl_server.interchange.parity.parity import compare
from pirl_server.model.layers import gemma, siglip
from pirl_server.model.layers.attention_mask import key_bias, with_suffix
from pirl_server.model.layers.llama import LlamaNorm
from pirl_server.model.layers.siglip import image_tokens
from pirl_server.model.layers.time_embedding import time_embedding
from pirl_server.model.prefix import Prefix, positions
from pirl_server.model.smolvla import config as sizes
from pirl_server.model.smolvla import smolvla
from pirl_server.model.smolvla.config import SmolVlaConfig
from pirl_server.model.smolvla.expert import CrossAttention, View
from pirl_server.model.smolvla.smolvla import SmolVla

FILE = Path(__file__).parent / "golden" / "smolvla_tiny.safetensors"
GATE, NOTICED = 1e-5, 5e-2


@pytest.fixture
def golden() -> Golden:
    return load_golden(FILE)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return load_file(FILE)


def network(golden: Golden) -> SmolVla:
    assert isinstance(golden.model, SmolVla)
    return golden.model


def largest(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


@torch.no_grad()
def whole_prefix(golden: Golden) -> tuple[Prefix, list[gemma.KeyValue]]:
    """Every token in its place, as lerobot keeps them, and the keys and values of the state behind them."""
    assert golden.state is not None
    prefix = network(golden).encode_prefix(**golden.prefix, static=True)  # type: ignore[arg-type]
    return prefix, network(golden).encode_state(prefix, golden.state)


@torch.no_grad()
def test_images_and_prefix_tokens(golden: Golden, recorded: dict[str, Tensor]) -> None:
    model = network(golden)
    images, image_mask, tokens, token_mask = golden.prefix.values()
    features, _ = image_tokens(model.vision, model.connector, images, image_mask, static=True)
    assert largest(features, recorded["out/image_features"].flatten(1, 2)) <= GATE
    x, mask = model.embed_prefix(images, image_mask, tokens, token_mask, static=True)
    assert golden.state is not None
    state = model.state_proj(golden.state)[:, None]
    assert largest(torch.cat([x, state], dim=1), recorded["out/prefix_embeds"]) <= 1e-4
    assert torch.equal(with_suffix(mask, 1), recorded["out/prefix_pad_mask"])
    assert torch.equal(positions(with_suffix(mask, 1)), recorded["out/prefix_positions"])


@torch.no_grad()
def test_keys_and_values(golden: Golden, recorded: dict[str, Tensor]) -> None:
    prefix, state = whole_prefix(golden)
    exists = recorded["out/prefix_pad_mask"][:, None, :, None]
    for place, layer in (("first", 0), ("last", -1)):
        ours = [torch.cat([part[layer], own], dim=2) for part, own in zip((prefix.keys, prefix.values), state[layer])]
        for name, part in zip(("key", "value"), ours):
            assert largest(part * exists, recorded[f"out/cache_{name}_{place}"] * exists) <= GATE


@torch.no_grad()
def test_who_sees_whom(golden: Golden, recorded: dict[str, Tensor]) -> None:
    """The state is a block of its own; actions see the prefix that exists, themselves and those before."""
    prefix, _ = whole_prefix(golden)
    causal, cross = network(golden)._views(prefix)
    group, H = network(golden).expert.group, network(golden).config.horizon
    assert causal.bias is not None
    assert cross.bias is not None
    seen = (causal.bias == 0).unflatten(2, (group, H)).expand(-1, 1, group, H, -1)
    for head in range(group):
        assert torch.equal(seen[:, 0, head], recorded["out/suffix_mask_2d"])
    assert torch.equal(cross.bias[:, 0, 0] == 0, recorded["out/prefix_pad_mask"])
    among = recorded["out/prefix_mask_2d"]
    assert not among[:, :-1, -1].any()
    assert torch.equal(among[:, -1], recorded["out/prefix_pad_mask"])


@torch.no_grad()
def test_velocities_and_suffix_tokens(golden: Golden, recorded: dict[str, Tensor]) -> None:
    model = network(golden)
    prefix = model.encode_prefix(**golden.prefix)  # type: ignore[arg-type]
    for name in ("100", "070", "010"):
        t = torch.full_like(golden.time, int(name) / 100)
        x = t[:, None, None] * golden.noise + (1.0 - t[:, None, None]) * golden.actions
        assert largest(model.velocity(prefix, golden.state, x, t), recorded[f"out/velocity_{name}"]) <= GATE
        if name == "070":
            tokens = model.embed_actions(x, model.time_shift(t))
            assert largest(tokens, recorded["out/suffix_embeds_070"]) <= GATE


# Controls: each breaks one thing, and the samples must show it.


def wavelength(value: float) -> Callable[[Golden, pytest.MonkeyPatch], None]:
    return lambda golden, patch: patch.setattr(gemma, "BASE", value)


def without_state(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    hidden = partial(torch.nn.functional.pad, pad=(0, 1), value=False)
    patch.setattr(smolvla, "with_suffix", lambda mask, tokens: hidden(mask))


def blind_state(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    """The state sees itself alone."""
    usual = SmolVla.encode_state

    def encode(model: SmolVla, prefix: Prefix, state: Tensor) -> list[gemma.KeyValue]:
        return usual(model, replace(prefix, mask=torch.zeros_like(prefix.mask), full=False), state)

    patch.setattr(SmolVla, "encode_state", encode)


def bidirectional(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        smolvla, "causal_bias", lambda prefix, tokens, group, dtype: key_bias(with_suffix(prefix, tokens), dtype)
    )


def keys_before_rope(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    """The prefix's tokens stand at the front of their rows, so that a token's place is its position."""
    usual = CrossAttention.project

    def project(layer: CrossAttention, cache: gemma.KeyValue) -> gemma.KeyValue:
        back = gemma.rotary(-torch.arange(cache[0].shape[2])[None], layer.head_dim, torch.float32)
        return usual(layer, (gemma.rotate(cache[0], back), cache[1]))

    patch.setattr(CrossAttention, "project", project)


def keys_not_projected(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CrossAttention, "project", lambda layer, cache: cache)


def global_queries(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    usual = SmolVla._views

    def views(model: SmolVla, prefix: Prefix) -> tuple[View, View]:
        causal, cross = usual(model, prefix)
        return causal, View(cross.bias, causal.turn)

    patch.setattr(SmolVla, "_views", views)


def dim_images(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    network(golden).connector.proj.weight.data /= math.sqrt(network(golden).config.vlm.width)


def dim_text(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    network(golden).embed_tokens.weight.data /= math.sqrt(network(golden).config.vlm.width)


def columns_before_rows(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    """Within a token of shuffled pixels."""
    usual = smolvla.Connector.forward

    def forward(connector: smolvla.Connector, patches: Tensor) -> Tensor:
        side = math.isqrt(patches.shape[1])
        return usual(connector, patches.unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2))

    patch.setattr(smolvla.Connector, "forward", forward)


def no_newline(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    mask = golden.prefix["token_mask_BL"]
    assert mask is not None
    mask[torch.arange(len(mask)), mask.sum(dim=1) - 1] = False


def gemmas_norm(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    for norm in [each for each in golden.model.modules() if isinstance(each, LlamaNorm)]:
        norm.weight.data += 1.0


def every_layer_crosses_but_the_first(golden: Golden, patch: pytest.MonkeyPatch) -> None:
    """A third layer that may not see the actions before."""
    layer = network(golden).expert.layers[2]
    usual = layer.self_attn.forward
    hide = partial(torch.nn.functional.pad, pad=(0, 0), value=0.0)

    def forward(x: Tensor, bias: Tensor, turn: gemma.Turn, cache: gemma.KeyValue) -> tuple[Tensor, gemma.KeyValue]:
        closed = hide(bias).clone()
        closed[..., -x.shape[1] :] = float("-inf")
        return usual(x, closed, turn, cache)

    patch.setattr(layer.self_attn, "forward", forward)


CONTROLS: dict[str, Callable[[Golden, pytest.MonkeyPatch], None]] = {
    "wavelength 100,000": wavelength(1e5),
    "wavelength 1,000": wavelength(1e3),
    "no state token": without_state,
    "a state that sees nothing": blind_state,
    "bidirectional actions": bidirectional,
    "cross-attention to keys before RoPE": keys_before_rope,
    "cross-attention to keys as they are": keys_not_projected,
    "cross-attention queries at positions behind the prefix": global_queries,
    "images not scaled": dim_images,
    "text not scaled": dim_text,
    "pixel shuffle column by column": columns_before_rows,
    "no newline": no_newline,
    "norms with 1 + weight": gemmas_norm,
    "one layer of self-attention only": every_layer_crosses_but_the_first,
}


def worst_sample(golden: Golden) -> float:
    return max(value for name, value in compare(golden).items() if name != "loss")


@pytest.mark.parametrize("control", CONTROLS)
def test_a_mistake_is_noticed(control: str, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    CONTROLS[control](golden, monkeypatch)
    assert worst_sample(golden) > NOTICED


def test_positions_that_count_absent_tokens_are_noticed(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    static = partial(network(golden).encode_prefix, static=True)
    monkeypatch.setattr(golden.model, "encode_prefix", static)
    assert worst_sample(golden) <= GATE
    monkeypatch.setattr(smolvla, "positions", lambda mask: torch.arange(mask.shape[1]).expand_as(mask))
    assert worst_sample(golden) > NOTICED


def test_small_mistakes_are_beyond_the_gate_too(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact form of GELU, and the time's angles in float32."""
    with monkeypatch.context() as patch:
        patch.setattr(siglip, "gelu_tanh", torch.nn.functional.gelu)
        assert worst_sample(golden) > 5 * GATE
    assert worst_sample(golden) <= GATE

    def single(t: Tensor, width: int) -> Tensor:
        fraction = torch.linspace(0.0, 1.0, width // 2)
        angle = t.float()[..., None] * (2.0 * math.pi / (4e-3 * 1000.0**fraction))
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    monkeypatch.setattr(smolvla, "time_embedding", single)
    assert worst_sample(golden) > GATE
    assert largest(single(torch.tensor([0.5]), 8), time_embedding(torch.tensor([0.5]), 8).float()) < 1e-3


# Properties that hold for any weights.


@torch.no_grad()
def test_the_prefix_knows_no_state_and_its_keys_are_projected_once_per_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """One prefix per observation and instruction; ten steps read what was projected once."""
    config = draw_config(2, "smolvla")
    model, batch = draw_model(config, 2), draw_batch(config, 2, 3, cameras=2)
    prefix = model.encode_prefix(*batch.prefix())
    usual, calls = CrossAttention.project, []

    def project(layer: CrossAttention, cache: gemma.KeyValue) -> gemma.KeyValue:
        calls.append(cache[0].shape[2])
        return usual(layer, cache)

    monkeypatch.setattr(CrossAttention, "project", project)
    chunk = model.denoiser(prefix, batch.state, 10).sample(batch.x)
    crossing = sum(isinstance(each, CrossAttention) for each in model.modules())
    assert sorted(calls) == sorted([prefix.mask.shape[1], 1] * crossing)
    other = model.denoiser(prefix, batch.state + 0.5, 10).sample(batch.x)
    assert float((chunk - other).abs().max()) > 1e-3
    assert torch.equal(model.denoiser(prefix, batch.state, 10).sample(batch.x), chunk)


@torch.no_grad()
def test_an_action_knows_no_later_one() -> None:
    config = replace(draw_config(3, "smolvla"), horizon=5)
    model, batch = draw_model(config, 3), draw_batch(config, 3, 2, cameras=1)
    prefix = model.encode_prefix(*batch.prefix())
    before = model.velocity(prefix, batch.state, batch.x, batch.t)
    moved = batch.x.clone()
    moved[:, 3] += 1.0
    after = model.velocity(prefix, batch.state, moved, batch.t)
    assert torch.equal(after[:, :3], before[:, :3])
    assert float((after - before)[:, 3:].abs().amax(dim=2).min()) > 1e-4


def test_the_state_projection_learns_while_the_language_model_is_frozen() -> None:
    config = draw_config(1, "smolvla")
    model, batch = draw_model(config, 1), draw_batch(config, 1, 2, cameras=1)
    for parameter in model.vlm_parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        prefix = model.encode_prefix(*batch.prefix())
    model.velocity(prefix, batch.state, batch.x, batch.t).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.expert_parameters())


@pytest.mark.parametrize("config", [sizes.tiny(), sizes.tiny_state(), replace(sizes.tiny(), self_attention_every=3)])
def test_config_survives_json(config: SmolVlaConfig) -> None:
    assert SmolVlaConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(TypeError):
        SmolVlaConfig.from_dict({**asdict(config), "depht": 3})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_shuffle": 3}, "pixel_shuffle 3 must divide the 8 patches"),
        ({"heads": 5}, "5 heads must be a multiple of 2"),
        ({"family": "pi0"}, "'pi0' has other sizes"),
    ],
)
def test_sizes_that_cannot_be_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(sizes.tiny(), **change)


def test_the_full_size_has_lerobots_parameters() -> None:
    """450 M with the language head, which is never evaluated and is no part of the network."""
    with torch.device("meta"):
        model = SmolVla(sizes.smolvla())
    head = model.embed_tokens.weight.numel()
    vlm, expert = (sum(p.numel() for p in part) for part in (model.vlm_parameters(), model.expert_parameters()))
    assert 345e6 < vlm + head < 355e6
    assert 95e6 < expert < 105e6
    assert model.config.image_tokens == 64


@pytest.mark.parametrize("preset", [sizes.tiny, sizes.tiny_state])
def test_presets_start_sane(preset: Callable[[], SmolVlaConfig]) -> None:
    torch.manual_seed(0)
    config = preset()
    model = SmolVla(config)
    tokens, mask = torch.randint(200, (16, 9)), torch.ones(16, 9, dtype=torch.bool)
    images = None if config.vision is None else torch.rand(16, 1, 3, 64, 64) * 2 - 1
    image_mask = None if config.vision is None else torch.ones(16, 1, dtype=torch.bool)
    prefix = model.encode_prefix(images, image_mask, tokens, mask)
    x = torch.randn(16, config.horizon, config.action_dim)
    velocity = model.velocity(prefix, torch.randn(16, config.state_dim), x, torch.rand(16))
    assert 0.05 < float(velocity.detach().std()) < 2.0
    assert sum(p.numel() for p in model.parameters()) < 3_000_000
