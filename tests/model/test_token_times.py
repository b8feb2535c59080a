"""A time of its own for each action token: what a prefix-conditioned draw runs on."""

from __future__ import annotations

import pytest
import torch
from scenes import FAMILIES, draw_batch, draw_config, draw_model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(4))
def test_the_same_time_for_every_token_is_one_time(seed: int, family: str) -> None:
    config = draw_config(seed, family)
    model, batch = draw_model(config, seed), draw_batch(config, seed, 3, 2)
    prefix = model.encode_prefix(*batch.prefix())
    together = model.velocity(prefix, batch.state, batch.x, batch.t)
    spread = batch.t[:, None].expand(3, config.horizon)
    torch.testing.assert_close(model.velocity(prefix, batch.state, batch.x, spread), together, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_denoiser_with_given_tokens_is_the_network_with_their_times(family: str) -> None:
    config = draw_config(2, family)
    model, batch = draw_model(config, 2), draw_batch(config, 2, 3, 2)
    assert config.horizon > 1
    prefix = model.encode_prefix(*batch.prefix())
    given = torch.arange(config.horizon) < torch.tensor([0, 1, config.horizon - 1])[:, None]
    denoiser, plain = model.denoiser(prefix, batch.state, 4, given), model.denoiser(prefix, batch.state, 4)
    for k in range(4):
        t_B = torch.full((3,), 1.0 - k / 4, dtype=torch.float64)
        times = torch.where(given, 0.0, t_B[:, None])
        expected = model.velocity(prefix, batch.state, batch.x, times)
        found = denoiser(batch.x, t_B)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert float((found[1:] - plain(batch.x, t_B)[1:]).abs().max()) > 1e-4, "the given tokens' time matters"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_derivative_by_x_is_that_of_the_network(family: str) -> None:
    """Also from the second step on, when the state token's keys are kept."""
    config = draw_config(1, family)
    model, batch = draw_model(config, 1), draw_batch(config, 1, 3, 2)
    prefix = model.encode_prefix(*batch.prefix())
    denoiser, pull = model.denoiser(prefix, batch.state, 2), torch.randn_like(batch.x)
    for t in (1.0, 0.5):
        t_B, x = torch.full((3,), t, dtype=torch.float64), batch.x.clone().requires_grad_()
        (found,) = torch.autograd.grad(denoiser.differentiable(x, t_B), x, pull)
        (expected,) = torch.autograd.grad(model.velocity(prefix, batch.state, x, t_B), x, pull)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert not denoiser(x, t_B).requires_grad
