"""Flow-SDE against exact recursions, with the well-known mistakes as negative controls."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gaussian_toy import MEAN, euler_transition, propagate, scalar, time, velocity
from torch import Tensor

from pirl_server.algorithm.flow import Transition, per_chunk, time_at
from pirl_server.algorithm.flow_sde import annealed, noise_scale, regular_scale, transition


def sde(noise_level: float) -> Transition:
    return partial(transition, noise_level=noise_level)


@pytest.mark.parametrize(
    ("noise_level", "steps", "std"),
    [(0.5, 4, 0.281435), (0.5, 10, 0.318671), (0.5, 100, 0.348222), (0.2, 4, 0.232151), (0.8, 4, 0.326539)],
)
def test_marginals_when_every_step_is_stochastic(noise_level: float, steps: int, std: float) -> None:
    mean, ours = propagate(sde(noise_level), steps)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert ours == pytest.approx(std, abs=1e-6)


@pytest.mark.parametrize(("index", "std"), [(0, 0.233353), (1, 0.248216), (2, 0.249962), (3, 0.241700)])
def test_marginals_when_one_step_is_stochastic(index: int, std: float) -> None:
    mean, ours = propagate(sde(0.5), 4, only=index)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert ours == pytest.approx(std, abs=1e-6)


@pytest.mark.parametrize(("steps", "std"), [(1000, 0.350732), (5000, 0.350661)])
def test_the_singular_schedule_does_not_converge_as_one_over_k(steps: int, std: float) -> None:
    assert propagate(sde(0.5), steps)[1] == pytest.approx(std, abs=1e-6)


def test_a_regular_schedule_converges_as_one_over_k() -> None:
    regular = partial(transition, noise_level=0.5, scale=regular_scale)
    errors = [propagate(regular, steps)[1] - 0.35 for steps in (1000, 10_000)]
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=0.02)
    assert errors[1] * 10_000 == pytest.approx(-0.511, rel=0.01)


def test_the_papers_own_clock_gives_the_same_numbers() -> None:
    """Re-derived in tau = 1 - t with w = -v: an independent road to the same transition."""

    def tau_form(x: Tensor, v: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        tau, w = 1.0 - t, -v
        sigma = 0.5 * torch.sqrt((1.0 - tau) / tau.clamp(min=dt))
        correction = per_chunk(sigma**2 / (2.0 * (1.0 - tau))) * (x - per_chunk(tau) * w)
        return x + dt * (w - correction), per_chunk(sigma) * dt**0.5

    for steps in (4, 10, 100):
        assert propagate(tau_form, steps) == pytest.approx(propagate(sde(0.5), steps), abs=1e-12)


def test_schedule_table() -> None:
    t = time_at(torch.arange(4), 4, torch.float64)
    sigma = noise_scale(t, 0.25, 0.5)
    torch.testing.assert_close(sigma, torch.tensor([1.0, 0.75**0.5, 0.5, 0.288675], dtype=t.dtype), atol=1e-6, rtol=0)
    std = transition(scalar(0.0).expand(4, 1, 1), scalar(0.0), t, 0.25, noise_level=0.5)[1].flatten()
    torch.testing.assert_close(std, torch.tensor([0.5, 0.433013, 0.25, 0.144338], dtype=t.dtype), atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 100])
def test_the_first_steps_std_is_the_noise_level(steps: int) -> None:
    std = transition(scalar(0.0), scalar(0.0), time(1.0), 1.0 / steps, noise_level=0.3)[1]
    assert float(std) == pytest.approx(0.3, abs=1e-12)


def single_point_variance(t: float, dt: float, noise_level: float) -> float:
    """Variance after one step when all data is one point at 0: then x_t is N(0, t^2) and v = x / t."""
    slope, std = transition(scalar(1.0), scalar(1.0 / t), time(t), dt, noise_level=noise_level)
    return float(slope**2 * t**2 + std**2)


def test_one_step_inflates_the_variance_by_the_known_amount() -> None:
    expected = {1.0: 0.640625, 0.75: 0.328125, 0.5: 0.0976563, 0.25: 0.0225694}
    for t, variance in expected.items():
        assert single_point_variance(t, 0.25, 0.5) == pytest.approx(variance, abs=1e-6)
    # the first step's relative inflation tends to a^4 / 4 however many steps there are
    relative = single_point_variance(1.0, 1e-4, 0.8) / (1.0 - 1e-4) ** 2
    assert relative == pytest.approx(1.0 + 0.8**4 / 4.0, rel=1e-3)


def flipped(x: Tensor, v: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    mean, std = transition(x, v, t, dt, noise_level=0.5)
    return 2.0 * (x - dt * v) - mean, std


def paper_literal(x: Tensor, v: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Eq. 9 as printed: the paper's tau and w with the other clock's schedule, score and sign."""
    tau, w = 1.0 - t, -v
    correction = per_chunk(0.5**2 / (2.0 * (1.0 - tau))) * (x + per_chunk(1.0 - tau) * w)
    return x + dt * (w + correction), per_chunk(0.5 * torch.sqrt(tau / (1.0 - tau))) * dt**0.5


def without_sqrt(x: Tensor, v: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    mean, std = transition(x, v, t, dt, noise_level=0.5)
    return mean, std / dt**0.5 * dt


@pytest.mark.parametrize("wrong", [flipped, paper_literal, without_sqrt])
def test_wrong_transitions_are_noticed(wrong: Transition) -> None:
    right = propagate(sde(0.5), 4)
    mean, std = propagate(wrong, 4)
    assert abs(mean - right[0]) > 0.02 or abs(std - right[1]) > 0.02


def test_wrong_transitions_give_their_predicted_wrong_numbers() -> None:
    assert propagate(flipped, 4)[1] == pytest.approx(0.589885, abs=1e-6)
    assert propagate(flipped, 5000)[1] == pytest.approx(1.91, abs=0.01)
    assert propagate(paper_literal, 4) == pytest.approx((0.843559, 0.542987), abs=1e-6)
    assert propagate(paper_literal, 1000) == pytest.approx((1.67, 2.10), abs=0.01)


def test_without_the_patch_the_first_step_is_infinite() -> None:
    """dt = 0 switches the clamp off."""
    assert torch.isinf(noise_scale(time(1.0), 0.0, 0.5)).all()
    assert torch.isfinite(noise_scale(time(1.0), 0.25, 0.5)).all()


def test_no_noise_is_the_ode() -> None:
    x, t = scalar(0.3), time(0.5)
    v = velocity(x, t)
    for ours, expected in zip(transition(x, v, t, 0.25, noise_level=0.0), euler_transition(x, v, t, 0.25)):
        torch.testing.assert_close(ours, expected, atol=0, rtol=0)


def test_annealing() -> None:
    levels = [annealed(0.7, 0.3, 400, update) for update in (0, 100, 200, 400, 1000)]
    assert levels == pytest.approx([0.7, 0.6, 0.5, 0.3, 0.3])
