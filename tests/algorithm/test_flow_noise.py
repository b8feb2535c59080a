"""Flow-Noise: the bounds of its learnt noise, its marginals, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian_toy import MEAN, euler_transition, propagate, scalar, time, velocity
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pirl_server.algorithm.density import log_prob
from pirl_server.algorithm.flow import Transition, euler, euler_chain
from pirl_server.algorithm.flow_noise import bounded_std, join, transition

LOW, HIGH = 0.08, 0.16


def with_noise(u: float) -> Transition:
    """Flow-Noise on a velocity alone: the noise net says u everywhere."""

    def step(x: Tensor, v: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        return transition(x, join(v, torch.full_like(v, u)), t, dt, low=LOW, high=HIGH)

    return step


def test_zero_is_the_geometric_mean() -> None:
    assert float(bounded_std(scalar(0.0), LOW, HIGH)) == pytest.approx(0.113137, abs=1e-6)
    assert float(bounded_std(scalar(0.0), LOW, HIGH)) == pytest.approx((LOW * HIGH) ** 0.5, abs=1e-15)


@given(st.floats(-50.0, 50.0, width=32))
def test_bounds_are_never_exceeded(u: float) -> None:
    for dtype in (torch.float32, torch.float64):
        std = bounded_std(torch.tensor(u, dtype=dtype), LOW, HIGH)
        assert bool(std >= torch.tensor(LOW, dtype=dtype))
        assert bool(std <= torch.tensor(HIGH, dtype=dtype))


def test_bounds_are_reached_and_the_order_is_kept() -> None:
    std = bounded_std(torch.linspace(-4.0, 4.0, 81, dtype=torch.float64), LOW, HIGH)
    assert bool((std.diff() > 0).all())
    assert float(bounded_std(scalar(-50.0), LOW, HIGH)) == pytest.approx(LOW)
    assert float(bounded_std(scalar(50.0), LOW, HIGH)) == pytest.approx(HIGH)


def test_derivative_of_the_log_std() -> None:
    u = torch.linspace(-3.0, 3.0, 13, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(bounded_std(u, LOW, HIGH).log().sum(), u)
    torch.testing.assert_close(slope, math.log(HIGH / LOW) * (1.0 - torch.tanh(u.detach()) ** 2) / 2.0)


def test_the_mean_is_the_plain_euler_step() -> None:
    x, t = scalar(0.3), time(0.5)
    v = velocity(x, t)
    mean, std = with_noise(0.0)(x, v, t, 0.25)
    assert torch.equal(mean, euler_transition(x, v, t, 0.25)[0])
    assert float(std) == pytest.approx(0.113137, abs=1e-6)


@pytest.mark.parametrize("steps", [4, 10])
def test_marginals_are_the_odes_plus_the_noise_that_is_left(steps: int) -> None:
    """Noise is per step, not per time: each step's share of it shrinks by the slopes of the steps after."""
    mean, std = propagate(with_noise(0.0), steps)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    ode = [propagate(euler_transition, steps)[1] ** 2]
    only = [propagate(with_noise(0.0), steps, only=k)[1] ** 2 - ode[0] for k in range(steps)]
    assert std**2 == pytest.approx(ode[0] + sum(only), abs=1e-12)
    assert only[-1] == pytest.approx(LOW * HIGH, abs=1e-12)


def test_evaluation_leaves_the_noise_channels_out() -> None:
    noise = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joined = euler_chain(lambda x, t: join(velocity(x, t), torch.ones_like(x)), noise, 4)
    assert torch.equal(joined, euler_chain(velocity, noise, 4))
    assert euler(noise, join(noise, noise), 0.5).shape == noise.shape


def test_gradients_reach_velocity_and_noise() -> None:
    """d log p / dv = -dt (x' - mu) / std^2; d log p / du = (z^2 - 1) d log std / du."""
    v, u = (torch.full((1, 1, 1), value, dtype=torch.float64, requires_grad=True) for value in (0.5, 0.3))
    mean, std = transition(scalar(0.2), join(v, u), time(0.5), 0.25, low=LOW, high=HIGH)
    density = log_prob(scalar(0.3), mean, std)
    by_v, by_u = torch.autograd.grad(density.sum(), (v, u))
    sigma = float(std.detach())
    z = (0.3 - 0.075) / sigma
    assert float(by_v) == pytest.approx(-0.25 * z / sigma, rel=1e-9)
    slope = math.log(HIGH / LOW) * (1.0 - math.tanh(0.3) ** 2) / 2.0
    assert float(by_u) == pytest.approx((z**2 - 1.0) * slope, rel=1e-9)
