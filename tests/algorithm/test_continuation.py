"""Real-time chunking against closed forms, finite differences and a policy that a naive switch tears."""

from __future__ import annotations

import math

import pytest
import torch
from smooth_toy import COVARIANCE, HORIZON, STAY, Smooth
from torch import Tensor
from torch.distributions import Normal

from pirl_server.algorithm.awr import weighted_flow_matching_loss
from pirl_server.algorithm.flow import Velocity, euler_chain, time_at
from pirl_server.algorithm.flow_sde import transition as flow_sde
from pirl_server.algorithm.hybrid_sampler import hybrid_sample
from pirl_server.algorithm.rtc import (
    draw_delays,
    given_tokens,
    guidance_scale,
    guided,
    overlap_weights,
    resting,
    resting_transition,
    start_given,
    token_times,
)

UNBOUNDED = math.inf


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=random(seed), dtype=torch.float64)


def counts(*values: int) -> Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(("delay", "count", "horizon"), [(0, 0, 4), (0, 3, 4), (2, 5, 8), (3, 3, 8), (4, 8, 8)])
def test_weights_are_those_of_the_paper(delay: int, count: int, horizon: int) -> None:
    expected = []
    for i in range(horizon):
        c = (count - i) / (count - delay + 1)
        expected.append(1.0 if i < delay else c * (math.exp(c) - 1) / (math.e - 1) if i < count else 0.0)
    found = overlap_weights(horizon, counts(delay), counts(count))[0]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert (found.diff() <= 0).all()


def test_weights_of_several_rows_are_those_of_each() -> None:
    together = overlap_weights(6, counts(1, 4), counts(3, 5))
    alone = [overlap_weights(6, counts(delay), counts(count))[0] for delay, count in ((1, 3), (4, 5))]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=0)


def test_the_scale_is_that_of_the_paper_and_bounded() -> None:
    t = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.01], dtype=torch.float64)
    tau = 1.0 - t
    r2 = (1.0 - tau) ** 2 / (tau**2 + (1.0 - tau) ** 2)
    papers = torch.minimum(torch.tensor(5.0).double(), (1.0 - tau) / (tau * r2))
    torch.testing.assert_close(guidance_scale(t), papers)
    assert guidance_scale(t).tolist() == pytest.approx([5.0, 10 / 3, 2.0, 10 / 3, 5.0])


@pytest.mark.parametrize("t", [0.9, 0.5, 0.1])
def test_for_actions_of_unit_variance_guidance_is_the_exact_conditional(t: float) -> None:
    """N(0, 1) data, y known: the velocity to y is (x - y) / t, that of an entry not known stays as it is."""

    def unit(x: Tensor, t_B: Tensor) -> Tensor:
        t = t_B[:, None, None]
        return (t - (1 - t)) * x / ((1 - t) ** 2 + t**2)

    x, y, t_B = normal(2, 3, 1), normal(2, 3, 1, seed=1), torch.full((2,), t, dtype=torch.float64)
    weight = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)[:, None].expand(2, 3, 1)
    found = guided(unit, y, weight, UNBOUNDED)(x, t_B)
    torch.testing.assert_close(found[:, :2], ((x - y) / t)[:, :2], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[:, 2], unit(x, t_B)[:, 2], rtol=0, atol=0)


def curved(x: Tensor, t_B: Tensor) -> Tensor:
    """Mixes the entries of a chunk, not linear, with another Jacobian than its transpose."""
    mixing = normal(x.shape[1], x.shape[1], seed=5)
    return torch.tanh(mixing @ x) * (1.0 + t_B[:, None, None]) + 0.3 * x**2


@pytest.mark.parametrize("t", [1.0, 0.5, 0.25])
def test_the_correction_by_finite_differences(t: float) -> None:
    x, y, weight = normal(1, 4, 2), normal(1, 4, 2, seed=1), normal(1, 4, 2, seed=2).abs()
    t_B = torch.tensor([t], dtype=torch.float64)

    def expected(at: Tensor) -> Tensor:
        return at - t * curved(at, t_B)

    pull = torch.zeros(8, dtype=torch.float64)
    error = (weight * (y - expected(x))).reshape(-1)
    for j in range(8):
        nudge = torch.zeros(8, dtype=torch.float64)
        nudge[j] = 1e-6
        step = nudge.reshape(x.shape)
        pull[j] = ((expected(x + step) - expected(x - step)).reshape(-1) / 2e-6) @ error
    scale = min(5.0, math.inf if t == 1 else ((1 - t) ** 2 + t**2) / (t * (1 - t)))
    found = guided(curved, y, weight)(x, t_B)
    torch.testing.assert_close(found, curved(x, t_B) - scale * pull.reshape(x.shape), rtol=1e-7, atol=1e-7)
    transposed = curved(x, t_B) - scale * (weight * (y - expected(x)))
    assert float((found - transposed).abs().max()) > 0.1, "negative control: without the Jacobian"


def test_channels_behind_the_velocity_pass_unchanged() -> None:
    def with_more(x: Tensor, t_B: Tensor) -> Tensor:
        return torch.cat([curved(x, t_B), 2.0 * x], dim=-1)

    x, y, t_B = normal(1, 4, 2), normal(1, 4, 2, seed=1), torch.tensor([0.5]).double()
    both, plain = guided(with_more, y, torch.ones_like(y))(x, t_B), guided(curved, y, torch.ones_like(y))(x, t_B)
    torch.testing.assert_close(both[..., :2], plain)
    assert torch.equal(both[..., 2:], 2.0 * x)


@pytest.mark.parametrize("index", [-1, 0, 2])
def test_without_weights_it_is_plain_sampling_bit_for_bit(index: int) -> None:
    policy, noise = Smooth(2.0), normal(3, HORIZON, 1)
    towards = guided(policy.velocity, normal(3, HORIZON, 1, seed=1), torch.zeros(3, HORIZON, 1).double())
    step = torch.full((3,), index)

    def chain(velocity: Velocity) -> Tensor:
        return hybrid_sample(velocity, noise, noise.flip(0), step, 4, lambda *a: flow_sde(*a, noise_level=0.5)).chain

    assert torch.equal(chain(towards), chain(policy.velocity))


def test_a_guided_chunk_by_matrices_and_what_it_is_worth() -> None:
    """One way only: expected action and velocity are linear in x, so the chunk is a product of matrices."""
    policy, delay, steps = Smooth(0.0), 4, 10
    y, noise = torch.full((HORIZON,), 1.5).double(), normal(HORIZON)
    weight = overlap_weights(HORIZON, counts(delay), counts(9))[0].double()
    x, eye = noise.clone(), torch.eye(HORIZON).double()
    for k in range(steps):
        t = 1.0 - k / steps
        to_action = (1 - t) * COVARIANCE @ torch.linalg.inv((1 - t) ** 2 * COVARIANCE + t**2 * eye)
        scale = min(5.0, math.inf if t == 1 else ((1 - t) ** 2 + t**2) / (t * (1 - t)))
        v = (x - to_action @ x) / t - scale * to_action.T @ (weight * (y - to_action @ x))
        x = x - v / steps
    rows = [part[None, :, None] for part in (noise, y, weight)]
    found = euler_chain(guided(policy.velocity, *rows[1:]), rows[0], steps)[0, -1, :, 0]
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)

    held = given_tokens(HORIZON, counts(delay)).double()[..., None]
    mean = euler_chain(guided(policy.velocity, rows[1], held), torch.zeros_like(rows[0]), steps)[0, -1, delay:, 0]
    exact = STAY ** torch.arange(1, HORIZON - delay + 1) * 1.5
    # The pull takes the known actions for independent, which these are not: the right way, not the exact mean.
    assert float((mean - exact).abs().mean()) < 0.3 * float(exact.mean()), "0 would be an error of all of it"


SEAM_BOUND = 0.5
"""of a policy's own action std: what the step over the seam may be, for 19 of 20 chunks"""


@pytest.mark.parametrize("delay", [1, 3, 6])
def test_the_seam_is_smooth_where_a_naive_switch_tears(delay: int) -> None:
    """Two ways to do it: a new chunk on its own takes the other one every second time."""
    policy, rows, passed = Smooth(2.0), 400, 2
    old, noise = policy.draw(rows, random(1)), normal(rows, HORIZON, 1, seed=2)
    known = torch.cat([old[:, passed:], old[:, -1:].expand(-1, passed, -1)], dim=1)
    n = torch.full((rows,), HORIZON - passed)
    weight = overlap_weights(HORIZON, torch.full((rows,), delay), n).double()[..., None]
    new = euler_chain(guided(policy.velocity, known, weight), noise, 10)[:, -1]
    naive = euler_chain(policy.velocity, noise, 10)[:, -1]

    def seam(chunk: Tensor) -> float:
        step = (chunk[:, delay] - known[:, delay - 1]).abs() / policy.std
        return float(step.quantile(0.95))

    assert seam(new) < SEAM_BOUND
    assert seam(naive) > 2 * SEAM_BOUND, "negative control"
    assert seam(old[:, passed:]) < SEAM_BOUND, "what the policy itself does from action to action"


def test_given_actions_rest_bit_for_bit_and_have_no_density() -> None:
    policy, index = Smooth(1.0), torch.tensor([0, 2, -1])
    given = given_tokens(HORIZON, counts(0, 3, 5))
    known, sde = normal(3, HORIZON, 1), normal(3, HORIZON, 1, seed=1)
    start = start_given(normal(3, HORIZON, 1, seed=2), known, given)
    step = resting_transition(lambda *a: flow_sde(*a, noise_level=0.5), given)
    draw = hybrid_sample(resting(policy.velocity, given), start, sde, index, 4, step)
    for row, delay in enumerate((0, 3, 5)):
        for x in draw.chain[row]:
            assert torch.equal(x[:delay], known[row, :delay])
        assert not draw.log_prob[row, :delay].any()
        assert draw.log_prob[row, delay:].all() == (row != 2)
    x, t = draw.chain[1:2, 2], time_at(index[1:2], 4, torch.float64)
    mean, std = flow_sde(x, policy.velocity(x, t), t, 0.25, noise_level=0.5)
    exact = Normal(mean, std).log_prob(draw.chain[1:2, 3])[0, 3:]
    torch.testing.assert_close(draw.log_prob[1, 3:], exact)


def test_training_gives_the_first_actions_clean_and_asks_for_the_others() -> None:
    given, t = given_tokens(4, counts(0, 2, 3)), torch.tensor([0.2, 0.5, 1.0])
    assert token_times(t, given).tolist() == [pytest.approx(row) for row in (
        [0.2, 0.2, 0.2, 0.2], [0, 0, 0.5, 0.5], [0, 0, 0, 1.0])]  # fmt: skip
    error = torch.where(given[..., None], 7.0, torch.tensor(2.0)).expand(3, 4, 2).clone().requires_grad_()
    rest = weighted_flow_matching_loss(error, torch.ones(3), ~given)
    assert float(rest.detach()) == pytest.approx(2.0)
    rest.backward()
    assert error.grad is not None
    assert torch.equal(error.grad != 0, (~given)[..., None].expand(3, 4, 2))


def test_delays_are_uniform_and_the_longest_occurs() -> None:
    drawn = draw_delays(5000, 4, random())
    share = torch.bincount(drawn, minlength=5) / 5000
    assert len(share) == 5
    assert float((share - 0.2).abs().max()) < 4 * math.sqrt(0.2 * 0.8 / 5000)
