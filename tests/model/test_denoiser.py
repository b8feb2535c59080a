"""The denoiser gives the velocities that training recomputes, for whole batches and shared prefixes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from scenes import FAMILIES, Batch, draw_batch, draw_config, draw_model

from pirl_server.algorithm.flow import euler_chain
from pirl_server.algorithm.flow_sde import transition
from pirl_server.algorithm.hybrid_sampler import draw_index, hybrid_sample, step_of_chain, transition_log_prob

families = pytest.mark.parametrize("family", FAMILIES)


def single(family: str, batch: int = 5) -> tuple[Any, Batch]:
    config = draw_config(3, family)
    return draw_model(config, 3, torch.float32), draw_batch(config, 3, batch, cameras=2).float()


@families
@pytest.mark.parametrize("steps", [1, 4, 10])
@torch.no_grad()
def test_it_agrees_with_velocity(family: str, steps: int) -> None:
    model, batch = single(family)
    prefix = model.encode_prefix(*batch.prefix())
    chain = euler_chain(partial(model.velocity, prefix, batch.state), batch.x, steps)
    ours = euler_chain(model.denoiser(prefix, batch.state, steps), batch.x, steps)
    torch.testing.assert_close(ours, chain, atol=1e-5, rtol=1e-5)
    sampled = model.denoiser(prefix, batch.state, steps).sample(batch.x)
    torch.testing.assert_close(sampled, chain[:, -1], atol=1e-5, rtol=1e-5)


@families
@torch.no_grad()
def test_steps_in_any_order(family: str) -> None:
    """Which step comes first, and brings the state's keys, does not matter."""
    model, batch = single(family)
    prefix = model.encode_prefix(*batch.prefix())
    forth, back = model.denoiser(prefix, batch.state, 4), model.denoiser(prefix, batch.state, 4)
    one = [forth.velocity_at(k, batch.x) for k in range(4)]
    other = [back.velocity_at(k, batch.x) for k in reversed(range(4))]
    torch.testing.assert_close(torch.stack(one), torch.stack(other[::-1]), atol=1e-6, rtol=1e-5)


@families
@torch.no_grad()
def test_one_prefix_serves_a_batch(family: str) -> None:
    model, batch = single(family)
    first = [part[:1] for part in batch.prefix()]
    alone = model.encode_prefix(*first)
    every = model.encode_prefix(*(part.repeat_interleave(5, dim=0) for part in first))
    assert len(alone.mask) == 1
    assert alone.full
    ours, theirs = (model.denoiser(each, batch.state, 3).sample(batch.x) for each in (alone, every))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@families
@torch.no_grad()
def test_unchanged_weights_give_a_ratio_of_one(family: str) -> None:
    """Sampled with the denoiser, recomputed with a time per row."""
    model, batch = single(family)
    prefix = model.encode_prefix(*batch.prefix())
    generator = torch.Generator().manual_seed(0)
    index, noise = draw_index(5, 4, generator), torch.randn(batch.x.shape, generator=generator)
    sde = partial(transition, noise_level=0.5)
    drawn = hybrid_sample(model.denoiser(prefix, batch.state, 4), batch.x, noise, index, 4, sde)
    again = transition_log_prob(
        partial(model.velocity, prefix, batch.state), *step_of_chain(drawn.chain, index), index, 4, sde
    )
    assert float((again - drawn.log_prob).abs().max()) < 1e-5


@families
def test_it_leaves_no_graph_and_refuses_other_times(family: str) -> None:
    model, batch = single(family)
    prefix = model.encode_prefix(*batch.prefix())
    denoiser = model.denoiser(prefix, batch.state, 4)
    assert not denoiser(batch.x, torch.full((5,), 0.75)).requires_grad
    with pytest.raises(AssertionError, match="not one of the 4 times"):
        denoiser(batch.x, torch.full((5,), 0.7))


@families
def test_gradients_reach_every_weight_that_counts(family: str) -> None:
    """All of the expert; all of the prefix but what only the mean output reads: the end of the last block."""
    model, batch = single(family)
    prefix = model.encode_prefix(*batch.prefix())
    model.velocity(prefix, batch.state, batch.x, batch.t).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    last = f"language.layers.{model.config.depth - 1}."
    unread = ("self_attn.o_proj", "post_attention_layernorm", "gate_up_proj", "down_proj")
    assert without <= {"language.norm.weight", *(f"{last}{name}.weight" for name in unread)}


@families
def test_gradients_equal_finite_differences(family: str) -> None:
    config = draw_config(1, family)
    model, batch = draw_model(config, 1), draw_batch(config, 1, 2, cameras=2)

    def loss(scale: torch.Tensor) -> torch.Tensor:
        prefix = model.encode_prefix(batch.images * scale, *batch.prefix()[1:])
        return model.velocity(prefix, batch.state * scale, batch.x * scale, batch.t * scale).sum()

    assert torch.autograd.gradcheck(loss, torch.tensor(0.9, dtype=torch.float64, requires_grad=True), atol=1e-6)


@pytest.mark.parametrize("family", ["pi0", "smolvla"])
@torch.no_grad()
def test_what_does_not_exist_costs_nothing(family: str) -> None:
    """Absent images do not pass the vision tower; the prefix is as long as its longest row."""
    model, batch = single(family)
    seen: list[int] = []
    model.vision.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    cut, whole = (model.encode_prefix(*batch.prefix(), static=static) for static in (False, True))
    assert seen == [int(batch.image_mask.sum()), batch.image_mask.numel()]
    assert cut.mask.shape[1] == int(cut.count.max()) < whole.mask.shape[1]
    blind = model.encode_prefix(batch.images, torch.zeros_like(batch.image_mask), batch.tokens, batch.token_mask)
    assert seen[-1] == 0
    assert blind.count.tolist() == batch.token_mask.sum(dim=1).tolist()
    assert bool(blind.keys.isfinite().all())
