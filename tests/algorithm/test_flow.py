"""Clock, path, score and the Euler sampler, against closed forms."""

from __future__ import annotations

import pytest
import torch
from gaussian_toy import MEAN, euler_transition, marginal, propagate, time, velocity

from pirl_server.algorithm.flow import (
    draw_time,
    euler_chain,
    flow_matching_loss,
    interpolate,
    score,
    time_at,
)

X = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64).view(1, 9, 1)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9, 1.0])
def test_score_is_the_gradient_of_the_log_marginal(t: float) -> None:
    mean, variance = marginal(torch.tensor(t, dtype=torch.float64))
    ours = score(X, velocity(X, time(t)), time(t))
    torch.testing.assert_close(ours, -(X - mean) / variance, atol=1e-12, rtol=0)


def test_the_papers_literal_score_is_noticed() -> None:
    """Eq. 7 as printed, at tau = 0.5 with w = -v, is far from the true score: the oracle can tell."""
    mean, variance = marginal(torch.tensor(0.5, dtype=torch.float64))
    w = -velocity(X, time(0.5))
    literal = -(X + 0.5 * w) / 0.5
    assert float((literal + (X - mean) / variance).abs().max()) > 4.0


@pytest.mark.parametrize(("steps", "std"), [(4, 0.218661), (10, 0.293058), (100, 0.343895)])
def test_ode_marginals(steps: int, std: float) -> None:
    mean, ours = propagate(euler_transition, steps)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert ours == pytest.approx(std, abs=1e-6)


def test_ode_error_falls_as_one_over_k() -> None:
    errors = [propagate(euler_transition, steps)[1] - 0.35 for steps in (1000, 10_000)]
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=0.02)
    assert errors[1] * 10_000 == pytest.approx(-0.6158, rel=0.01)


def test_the_loss_is_zero_at_the_true_velocity_only() -> None:
    action, noise = torch.randn(2, 3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    x = interpolate(action, noise, t)
    torch.testing.assert_close(x, torch.stack([action[0], (action[1] + noise[1]) / 2, noise[2]]))
    assert float(flow_matching_loss(noise - action, action, noise).max()) == 0.0
    assert float(flow_matching_loss(action - noise, action, noise).max()) > 1.0


def test_a_constant_velocity_is_integrated_exactly() -> None:
    noise, action = torch.ones(1, 2, 3, dtype=torch.float64), torch.full((1, 2, 3), 0.25, dtype=torch.float64)
    chain = euler_chain(lambda x, t: noise - action, noise, 4)
    assert chain.shape == (1, 5, 2, 3)
    torch.testing.assert_close(chain[:, 0], noise)
    torch.testing.assert_close(chain[:, -1], action)
    torch.testing.assert_close(chain[0, :, 0, 0], torch.linspace(1.0, 0.25, 5, dtype=torch.float64))


def test_the_network_is_never_asked_at_time_zero() -> None:
    grid = time_at(torch.arange(4), 4, torch.float32)
    assert grid.tolist() == [1.0, 0.75, 0.5, 0.25]


def test_training_times_follow_openpis_beta() -> None:
    t = draw_time(200_000, torch.Generator().manual_seed(0)).double()
    assert float(t.min()) >= 0.001
    assert float(t.max()) <= 1.0
    # Beta(1.5, 1): mean 0.6, variance 1.5 / (2.5^2 * 3.5)
    assert float(t.mean()) == pytest.approx(0.999 * 0.6 + 0.001, abs=4 * (0.0686 / 200_000) ** 0.5)
    quantile = float((t < 0.999 * 0.5 + 0.001).double().mean())
    assert quantile == pytest.approx(0.5**1.5, abs=4 * (0.354 * 0.646 / 200_000) ** 0.5)
