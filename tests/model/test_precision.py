"""Widths of numbers and where weights come from: bfloat16 by openpi's policy, float64, building without memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scenes import draw_batch, draw_config, draw_model

from pirl_server.interchange.parity.golden import load_golden
from pirl_server.model.pi0.config import Family
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.pi0.precision import to_bfloat16

FOLDER = Path(__file__).parent / "golden"
families = pytest.mark.parametrize("family", ["pi0", "pi05"])
WIDE = {
    "pi0": {"state_proj", "action_in_proj", "action_out_proj", "action_time_mlp_in", "action_time_mlp_out"},
    "pi05": {"action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out"},
}


@families
@torch.no_grad()
def test_bfloat16_is_near_and_keeps_wide_what_must_be(family: Family) -> None:
    golden = load_golden(FOLDER / f"{family}_tiny.safetensors")
    model = to_bfloat16(golden.model)
    prefix = model.encode_prefix(**golden.prefix)  # type: ignore[arg-type]
    assert prefix.keys.dtype == prefix.values.dtype == torch.bfloat16
    chunk = model.denoiser(prefix, golden.state, 4).sample(golden.noise)
    assert chunk.dtype == torch.float32
    difference = (chunk - golden.samples[4]).abs().max()
    assert 1e-5 < float(difference) < 5e-2 * float(golden.samples[4].abs().max())
    wide = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    assert {name.split(".")[0] for name in wide if name.count(".") == 1} == WIDE[family]
    inside = {name for name in wide if name.count(".") > 1}
    norms = ("input_layernorm", "post_attention_layernorm", "language.norm", "expert.norm")
    assert all("_embedding." in name or any(norm in name for norm in norms) for name in inside)
    assert len(inside) == 3 + 5 + 5 * (2 if family == "pi05" else 1)


@families
def test_a_bfloat16_model_still_learns(family: Family) -> None:
    config = draw_config(2, family)
    model, batch = to_bfloat16(draw_model(config, 2, torch.float32)), draw_batch(config, 2, 2, cameras=2).float()
    model.velocity(model.encode_prefix(*batch.prefix()), batch.state, batch.x, batch.t).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.expert_parameters())


@families
def test_float32_weights_under_autocast(family: Family) -> None:
    """As large models are trained: near float32, residual stream and gradients float32."""
    config = draw_config(2, family)
    model, batch = draw_model(config, 2, torch.float32), draw_batch(config, 2, 2, cameras=2).float()
    streams: list[torch.dtype] = []
    model.expert.norm.register_forward_pre_hook(lambda _, inputs: streams.append(inputs[0].dtype))
    exact = model.velocity(model.encode_prefix(*batch.prefix()), batch.state, batch.x, batch.t)
    with torch.autocast("cpu", torch.bfloat16):
        near = model.velocity(model.encode_prefix(*batch.prefix()), batch.state, batch.x, batch.t)
    assert 1e-5 < float((near - exact).detach().abs().max()) < 0.1 * float(exact.detach().abs().max())
    near.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.expert_parameters())
    assert streams == [torch.float32, torch.float32]


@families
@torch.no_grad()
def test_built_without_memory_then_given_weights(family: Family) -> None:
    config = draw_config(0, family)
    model, batch = draw_model(config, 0), draw_batch(config, 0, 2, cameras=2)
    with torch.device("meta"):
        empty = Pi0(config)
    assert all(p.is_meta for p in empty.parameters())
    assert not list(empty.buffers())
    empty.load_state_dict(model.state_dict(), assign=True)
    ours, theirs = (
        each.velocity(each.encode_prefix(*batch.prefix()), batch.state, batch.x, batch.t) for each in (empty, model)
    )
    assert torch.equal(ours, theirs)
