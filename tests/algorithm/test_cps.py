"""Coefficient-preserving sampling: exact for a single action, off for a spread target, silent in its last step."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gaussian_toy import MEAN, euler_transition, propagate, scalar, time, velocity

from pirl_server.algorithm import flow_sde
from pirl_server.algorithm.cps import transition
from pirl_server.algorithm.flow import Transition, time_at

CPS: Transition = partial(transition, noise_level=0.5)


@pytest.mark.parametrize(("steps", "std"), [(4, 0.211004), (1000, 0.322)])
def test_marginals(steps: int, std: float) -> None:
    """At K = 1000 still not the target's 0.35: the marginals are not preserved."""
    mean, ours = propagate(CPS, steps)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert ours == pytest.approx(std, abs=1e-6 if steps == 4 else 5e-4)


def variance_of_one_action(step: Transition, t: float, dt: float) -> float:
    """The target is the point 0, so v = x / t; variance of x_{t-dt} when x_t has variance t^2."""
    slope, std = step(scalar(1.0), scalar(1.0 / t), time(t), dt)
    return float(slope**2 * t**2 + std**2)


@pytest.mark.parametrize("t", [1.0, 0.75, 0.5, 0.25])
def test_a_single_action_keeps_its_path(t: float) -> None:
    assert variance_of_one_action(CPS, t, 0.25) == pytest.approx((t - 0.25) ** 2, abs=1e-12)
    sde = partial(flow_sde.transition, noise_level=0.5)
    assert variance_of_one_action(sde, t, 0.25) > (t - 0.25) ** 2 + 0.02  # negative control


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_the_last_step_is_exactly_silent(dtype: torch.dtype) -> None:
    """Rounding of 1 - (K-1)/K - 1/K must not become a tiny or negative standard deviation."""
    for steps in range(1, 60):
        t = time_at(torch.arange(steps), steps, dtype)
        x = torch.ones(steps, 1, 1, dtype=dtype)
        std = transition(x, x, t, 1.0 / steps, noise_level=0.5)[1].flatten()
        assert float(std[-1]) == 0.0
        assert bool((std[:-1] > 0.5 / steps).all())


def test_no_noise_is_the_ode() -> None:
    x, t = scalar(0.3), time(0.5)
    v = velocity(x, t)
    for ours, expected in zip(transition(x, v, t, 0.25, noise_level=0.0), euler_transition(x, v, t, 0.25)):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
