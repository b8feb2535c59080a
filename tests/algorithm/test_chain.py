"""Sampling with noise in every step: its distribution, its density again from what was stored, and its gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gaussian_toy import propagate, velocity
from small_net import Net
from torch import Tensor

from pirl_server.algorithm import cps, flow_noise, flow_sde
from pirl_server.algorithm.chain import chain_log_prob, sample_chain
from pirl_server.algorithm.flow import Transition, Velocity, euler_chain, time_at
from pirl_server.algorithm.hybrid_sampler import Draw, hybrid_sample
from pirl_server.algorithm.joint import joint_log_prob

STEPS = 4
SDE: Transition = partial(flow_sde.transition, noise_level=0.5)
NOISE: Transition = partial(flow_noise.transition, low=0.08, high=0.16)


def with_noise(x: Tensor, v: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    return NOISE(x, flow_noise.join(v, torch.zeros_like(v)), t, dt)


def draw(transition: Transition, n: int, seed: int = 0, noisy: bool = True, moved: Velocity = velocity) -> Draw:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 1, dtype=torch.float64, generator=generator)
    noise = torch.randn(n, STEPS, 1, 1, dtype=torch.float64, generator=generator)
    return sample_chain(moved, x, noise, torch.full((n,), noisy), transition)


@pytest.mark.parametrize("transition", [SDE, with_noise, partial(cps.transition, noise_level=0.5)])
def test_draws_have_the_exact_marginal(transition: Transition) -> None:
    n = 200_000
    action = draw(transition, n).chain[:, -1]
    mean, std = propagate(transition, STEPS)
    assert float(action.mean()) == pytest.approx(mean, abs=4 * std / n**0.5)
    assert float(action.std()) == pytest.approx(std, abs=4 * std / (2 * n) ** 0.5)
    assert abs(std - propagate(SDE, STEPS, only=1)[1]) > 10 * std / n**0.5  # another sampler would be noticed


def test_rows_that_are_not_noisy_are_the_ode_and_repeat_bitwise() -> None:
    quiet = draw(SDE, 6, noisy=False)
    assert torch.equal(quiet.chain, euler_chain(velocity, quiet.chain[:, 0], STEPS))
    assert torch.equal(quiet.chain, draw(SDE, 6, noisy=False).chain)
    assert float(quiet.log_prob.abs().max()) == float(quiet.std.max()) == 0.0
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(6, 1, 1, generator=generator), torch.randn(6, STEPS, 1, 1, generator=generator)
    some = sample_chain(velocity, x, noise, torch.arange(6) % 2 == 0, SDE)
    everyone = sample_chain(velocity, x, noise, torch.ones(6, dtype=torch.bool), SDE)
    assert torch.equal(some.chain[::2], everyone.chain[::2])
    assert torch.equal(some.chain[1::2], euler_chain(velocity, x, STEPS)[1::2])


def test_the_first_noisy_step_is_the_hybrid_samplers() -> None:
    x, noise = torch.randn(2, 8, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = hybrid_sample(velocity, x, noise, torch.zeros(8, dtype=torch.int64), STEPS, SDE)
    all_ = sample_chain(velocity, x, noise[:, None].expand(-1, STEPS, -1, -1), torch.ones(8, dtype=torch.bool), SDE)
    assert torch.equal(one.chain[:, 1], all_.chain[:, 1])
    assert torch.equal(one.log_prob, all_.log_prob[:, 0])
    assert not torch.equal(one.chain[:, 2], all_.chain[:, 2])


@torch.no_grad()
@pytest.mark.parametrize(("transition", "out"), [(SDE, 3), (NOISE, 6)])
def test_recomputing_the_density_gives_the_same_bits_unless_there_is_dropout(transition: Transition, out: int) -> None:
    for dropout in (0.0, 0.1):
        torch.manual_seed(0)
        net = Net(dropout, out)
        generator = torch.Generator().manual_seed(0)
        x, noise = torch.randn(16, 5, 3, generator=generator), torch.randn(16, STEPS, 5, 3, generator=generator)
        drawn = sample_chain(net, x, noise, torch.ones(16, dtype=torch.bool), transition)
        again, std = chain_log_prob(net, drawn.chain, transition)
        assert torch.equal(again, drawn.log_prob) == (dropout == 0.0)
        assert torch.equal(std, drawn.std) == (dropout == 0.0 or out == 3)


@torch.no_grad()
def test_a_recomputation_on_another_clock_is_noticed() -> None:
    """A sampler and a learner whose times differ by one step: each alone looks right."""
    drawn = draw(SDE, 64)

    def late(x: Tensor, t: Tensor) -> Tensor:
        return velocity(x, t - 1.0 / STEPS)

    again, _ = chain_log_prob(late, drawn.chain, SDE)
    assert float((again - drawn.log_prob).abs().max()) > 0.1


@pytest.mark.parametrize("transition", [SDE, with_noise])
def test_importance_weights_average_to_one(transition: Transition) -> None:
    n = 200_000
    drawn = draw(transition, n, seed=3)
    again, _ = chain_log_prob(lambda x, t: velocity(x, t) + 0.03, drawn.chain, transition)
    weight = (again - drawn.log_prob).sum(dim=1).exp()
    assert float(weight.std()) > 0.05
    assert float(weight.mean()) == pytest.approx(1.0, abs=4 * float(weight.std()) / n**0.5)


def tilted(theta: Tensor, raw: Tensor) -> Velocity:
    """The toy's velocity plus theta x, with the raw noise output behind it."""

    def velocity_and_noise(x: Tensor, t: Tensor) -> Tensor:
        return flow_noise.join(velocity(x, t) + theta * x, raw.expand_as(x))

    return velocity_and_noise


def plain_sde(x: Tensor, vu: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Flow-SDE that leaves the channel behind the velocity alone."""
    return SDE(x, vu[..., :1], t, dt)


def moments(transition: Transition, theta: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """E[action] and E[action^2] by recursion, with their graph."""
    mean, variance = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None]
    for k in range(STEPS):
        t = time_at(torch.full((2,), k), STEPS, torch.float64)
        out, std = transition(ends, tilted(theta, raw)(ends, t), t, 1.0 / STEPS)
        slope = (out[1] - out[0]).flatten()
        mean, variance = slope * mean + out[0].flatten(), slope**2 * variance + std[0].flatten() ** 2
    return mean, variance + mean**2


@pytest.mark.parametrize(("transition", "comparisons"), [(plain_sde, 2), (NOISE, 3)])
def test_reinforce_gradient_matches_the_recursion(transition: Transition, comparisons: int) -> None:
    """Score-function estimates of d E[a] and d E[a^2] by velocity and noise, against the recursion's derivative.

    Flow-SDE's noise has no parameter, and the mean does not depend on Flow-Noise's.
    """
    n, compared = 400_000, 0
    zero = torch.zeros(1, 1, 1, dtype=torch.float64)
    drawn = draw(transition, n, seed=5, moved=tilted(zero, zero))
    each = [torch.zeros(n, 1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    steps, _ = chain_log_prob(tilted(*each), drawn.chain, transition)
    scores = torch.autograd.grad(joint_log_prob(steps, drawn.chain[:, 0], "sum").sum(), each)
    knobs = [zero.clone().requires_grad_() for _ in range(2)]
    action = drawn.chain[:, -1]
    for reward, moment in zip((action, action**2), moments(transition, *knobs)):
        slopes = torch.autograd.grad(moment, knobs, retain_graph=True, materialize_grads=True)
        for score, slope in zip(scores, slopes):
            estimate = (reward - reward.mean()) * score
            error = float(estimate.std()) / n**0.5
            assert float(score.mean()) == pytest.approx(0.0, abs=4 * float(score.std()) / n**0.5)
            assert float(estimate.mean()) == pytest.approx(float(slope), abs=4 * error)
            compared += abs(float(slope)) > 8 * error
    assert compared == comparisons
