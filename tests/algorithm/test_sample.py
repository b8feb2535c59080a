"""The hybrid sampler: its chain, its density, its distribution, and recomputing the density from what it stored."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gaussian_toy import velocity
from scipy.stats import chisquare
from small_net import Net
from torch import Tensor

from pirl_server.algorithm.density import log_prob
from pirl_server.algorithm.flow import Transition, euler_chain, time_at
from pirl_server.algorithm.flow_sde import transition
from pirl_server.algorithm.hybrid_sampler import (
    Draw,
    draw_index,
    hybrid_sample,
    shared_index,
    step_of_chain,
    stratified_index,
    transition_log_prob,
)

STEPS = 4
SDE: Transition = partial(transition, noise_level=0.5)


def draw(batch: int, index: Tensor, seed: int = 0) -> Draw:
    x, noise = torch.randn(2, batch, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return hybrid_sample(velocity, x, noise, index, STEPS, SDE)


def test_the_index_is_uniform() -> None:
    index = draw_index(40_000, 5, torch.Generator().manual_seed(0))
    assert chisquare(torch.bincount(index, minlength=5).numpy()).pvalue > 1e-3
    assert not torch.equal(index, index[0].expand_as(index))


@pytest.mark.parametrize("batch", [8, 10, 3])
def test_a_stratified_index_covers_the_steps_evenly_and_stays_uniform(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([stratified_index(batch, STEPS, generator) for _ in range(2000)])
    counts = torch.stack([torch.bincount(row, minlength=STEPS) for row in drawn])
    assert int((counts.amax(dim=1) - counts.amin(dim=1)).max()) <= 1
    for place in (0, batch - 1):
        assert chisquare(torch.bincount(drawn[:, place], minlength=STEPS).numpy()).pvalue > 1e-3
    assert len(torch.unique((drawn[:, 1] - drawn[:, 0]) % STEPS)) > 1  # neighbours do not walk in step
    plain = torch.bincount(draw_index(8, STEPS, generator), minlength=STEPS)
    assert int(plain.max() - plain.min()) > 1  # what is drawn independently is not even


def test_a_shared_index_is_one_uniform_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([shared_index(4, STEPS, generator) for _ in range(4000)])
    assert torch.equal(drawn, drawn[:, :1].expand(-1, 4))
    assert chisquare(torch.bincount(drawn[:, 0], minlength=STEPS).numpy()).pvalue > 1e-3


def test_every_other_step_is_euler_and_the_noisy_one_is_not() -> None:
    index = torch.arange(8) % STEPS
    chain = draw(8, index).chain
    for k in range(STEPS):
        t = time_at(torch.full((8,), k), STEPS, torch.float64)
        euler = chain[:, k] - velocity(chain[:, k], t) / STEPS
        same = (chain[:, k + 1] == euler).flatten()
        assert torch.equal(same, index != k)


def test_the_density_is_that_of_the_noisy_step() -> None:
    index = torch.tensor([0, 1, 2, 3, -1])
    drawn = draw(5, index)
    for b, k in enumerate(index[:-1].tolist()):
        t = time_at(torch.tensor([k]), STEPS, torch.float64)
        x, following = drawn.chain[b : b + 1, k], drawn.chain[b : b + 1, k + 1]
        mean, std = SDE(x, velocity(x, t), t, 1.0 / STEPS)
        torch.testing.assert_close(drawn.log_prob[b : b + 1], log_prob(following, mean, std))
        torch.testing.assert_close(drawn.std[b : b + 1], std)
    assert float(drawn.log_prob[-1]) == 0.0
    assert float(drawn.std[-1]) == 0.0


def test_index_minus_one_is_the_ode_and_repeats_bitwise() -> None:
    index = torch.full((6,), -1)
    chain = draw(6, index).chain
    assert torch.equal(chain, draw(6, index).chain)
    assert torch.equal(chain, euler_chain(velocity, chain[:, 0], STEPS))


def test_vanishing_noise_tends_to_the_ode() -> None:
    x, noise = torch.randn(2, 6, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    index = torch.arange(6) % STEPS
    for noise_level in (1e-3, 1e-6):
        quiet = hybrid_sample(velocity, x, noise, index, STEPS, partial(transition, noise_level=noise_level))
        distance = float((quiet.chain - euler_chain(velocity, x, STEPS)).abs().max())
        assert 0.0 < distance < 10 * noise_level


@pytest.mark.parametrize(("index", "std"), [(0, 0.233353), (1, 0.248216), (2, 0.249962), (3, 0.241700)])
def test_draws_have_the_exact_marginal(index: int, std: float) -> None:
    n = 200_000
    action = draw(n, torch.full((n,), index), seed=index).chain[:, -1]
    assert float(action.mean()) == pytest.approx(0.7, abs=4 * std / n**0.5)
    assert float(action.std()) == pytest.approx(std, abs=4 * std / (2 * n) ** 0.5)


@torch.no_grad()
def log_ratio(net: Net) -> Tensor:
    """Elementwise log-ratio of a recomputation against the sampler's own density, float32, same batch."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 32, 5, 3, generator=generator)
    index = draw_index(32, STEPS, generator)
    drawn = hybrid_sample(net, x, noise, index, STEPS, SDE)
    again = transition_log_prob(net, *step_of_chain(drawn.chain, index), index, STEPS, SDE)
    return again - drawn.log_prob


def test_recomputing_the_density_gives_the_same_bits() -> None:
    torch.manual_seed(0)
    assert torch.equal(log_ratio(Net(dropout=0.0)), torch.zeros(32, 5, 3))


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_another_batch_size_moves_the_ratio_by_rounding_only(dtype: torch.dtype, bound: float) -> None:
    torch.manual_seed(0)
    net = Net(dropout=0.0).to(dtype)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return net(x.to(dtype), t.to(dtype)).float()  # type: ignore[no-any-return]

    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 32, 5, 3, generator=generator)
    index = draw_index(32, STEPS, generator)
    drawn = hybrid_sample(velocity, x, noise, index, STEPS, SDE)
    ends = step_of_chain(drawn.chain, index)
    for size in (1, 3, 32):
        rows = [part.split(size) for part in (*ends, index)]
        again = torch.cat([transition_log_prob(velocity, *part, STEPS, SDE) for part in zip(*rows)])
        assert float((again - drawn.log_prob).sum(dim=(1, 2)).abs().max()) <= bound


def test_dropout_breaks_the_ratio() -> None:
    torch.manual_seed(0)
    assert float(log_ratio(Net(dropout=0.1)).abs().max()) > 0.01
    assert torch.equal(log_ratio(Net(dropout=0.1).eval()), torch.zeros(32, 5, 3))


def test_importance_weights_average_to_one() -> None:
    """After the weights moved, E[exp(log-ratio)] over behaviour samples is 1 within four standard errors."""
    n = 100_000
    index = draw_index(n, STEPS, torch.Generator().manual_seed(3))
    drawn = draw(n, index)

    def moved(x: Tensor, t: Tensor) -> Tensor:
        return velocity(x, t) + 0.1

    again = transition_log_prob(moved, *step_of_chain(drawn.chain, index), index, STEPS, SDE)
    weight = (again - drawn.log_prob).exp()
    assert float(weight.std()) > 0.05
    assert float(weight.mean()) == pytest.approx(1.0, abs=4 * float(weight.std()) / n**0.5)


def test_reinforce_gradient_matches_the_recursion() -> None:
    """Shift every velocity by theta: E[action] and E[action^2] of the hybrid sampler are known; so are their slopes.

    The density covers the one noisy step only, so the gradient is the slope through that step's mean.
    """
    n, k = 400_000, 1
    index = torch.full((n,), k)
    drawn = draw(n, index, seed=5)
    theta = torch.zeros(n, 1, 1, dtype=torch.float64, requires_grad=True)

    def shifted(x: Tensor, t: Tensor) -> Tensor:
        return velocity(x, t) + theta

    terms = transition_log_prob(shifted, *step_of_chain(drawn.chain, index), index, STEPS, SDE)
    (score,) = torch.autograd.grad(terms.sum(), theta)
    action = drawn.chain[:, -1]
    # d action / d theta: the step's d mu / dv, carried by the slopes of the remaining Euler steps
    slope = -0.28125
    for later in range(k + 1, STEPS):
        t = time_at(torch.tensor([later]), STEPS, torch.float64)
        ends = [x - velocity(x, t) / STEPS for x in (torch.zeros(1, 1, 1).double(), torch.ones(1, 1, 1).double())]
        slope *= float(ends[1] - ends[0])
    for reward, expected in ((action, slope), (action**2, 2 * 0.7 * slope)):
        estimate = (reward - reward.mean()) * score
        assert float(estimate.mean()) == pytest.approx(expected, abs=4 * float(estimate.std()) / n**0.5)
        assert abs(expected) > 8 * float(estimate.std()) / n**0.5
