"""Learners for logged decisions: advantage weights, decoupled PPO and RECAP, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian_toy import MEAN, STD, marginal, velocity
from torch import Tensor

from pirl_server.algorithm.awr import advantage_weight, weighted_flow_matching_loss
from pirl_server.algorithm.decoupled import decoupled_policy_loss
from pirl_server.algorithm.flow import flow_matching_loss, interpolate
from pirl_server.algorithm.ppo import policy_loss
from pirl_server.algorithm.recap import better_than_usual, keep_condition, lookahead_advantage


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_advantage_weights() -> None:
    weight = advantage_weight(double(0.0, 1.0, -1.0, 50.0), beta=0.5, cap=20.0)
    assert weight.tolist() == pytest.approx([1.0, math.exp(2.0), math.exp(-2.0), 20.0])
    loss = torch.tensor([1.0, 3.0]).double()[:, None, None].expand(2, 4, 2)
    assert float(weighted_flow_matching_loss(loss, double(1.0, 1.0))) == pytest.approx(2.0)
    assert float(weighted_flow_matching_loss(loss, double(3.0, 1.0))) == pytest.approx(1.5)


def test_an_action_that_is_not_valid_counts_neither_above_nor_below_the_line() -> None:
    """By hand: weights 2 and 1, three valid actions of errors 1, 1 and 4."""
    loss = torch.tensor([[1.0, 9.0], [1.0, 4.0]]).double()[:, :, None].expand(2, 2, 3)
    valid = torch.tensor([[True, False], [True, True]])
    assert float(weighted_flow_matching_loss(loss, double(2.0, 1.0), valid)) == pytest.approx((2 + 1 + 4) / 4)
    assert float(weighted_flow_matching_loss(loss, double(2.0, 1.0), valid & False)) == 0.0


def densities(n: int = 64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New, proximal and behaviour log-probs, and advantages."""
    new, proximal, behaviour, advantage = torch.randn(
        4, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    return 0.2 * new, 0.2 * proximal, 0.5 * behaviour, advantage


def test_decoupled_is_ppo_when_the_anchor_acted() -> None:
    new, proximal, _, advantage = densities()
    valid = torch.arange(64) % 5 > 0
    ours = decoupled_policy_loss(new, proximal, proximal, advantage, valid)
    assert torch.equal(ours[0], policy_loss(new, proximal, advantage, valid)[0])
    assert float(ours[1]["behaviour_ess"]) == pytest.approx(1.0)


def test_decoupled_weights_are_counted_truncated_and_have_no_gradient() -> None:
    new, proximal, behaviour, advantage = (part.clone().requires_grad_() for part in densities())
    loss, metrics = decoupled_policy_loss(
        new, proximal, behaviour, advantage.detach(), torch.ones(64, dtype=torch.bool)
    )
    weight = (proximal - behaviour).detach().exp()
    assert float(metrics["truncated_fraction"]) == float((weight > 2.0).double().mean()) > 0.0
    assert float(metrics["behaviour_ess"]) == pytest.approx(float(weight.sum() ** 2 / (64 * (weight**2).sum())))
    gradient, anchor, behind = torch.autograd.grad(loss, (new, proximal, behaviour), allow_unused=True)
    assert behind is None
    torch.testing.assert_close(anchor, -gradient)  # through the ratio only
    assert float(gradient.abs().max()) <= 2.0 * float((advantage.abs() * (new - proximal).exp()).detach().max()) / 64


def test_decoupled_estimates_the_new_policys_advantage_from_old_samples() -> None:
    """Without clip or cap, -loss is E_old[(new / old) A]: for A = the action and equal Gaussians, the new mean."""
    z = torch.randn(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    at = {mean: -0.5 * (z - mean) ** 2 for mean in (0.0, 0.1, 0.2)}
    loss, _ = decoupled_policy_loss(
        at[0.2], at[0.1], at[0.0], z, z == z, clip_low=1.0, clip_high=100.0, max_weight=math.inf
    )
    assert float(-loss) == pytest.approx(0.2, abs=4 * 1.1 / 400_000**0.5)


def toy_draws(draws: int, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Actions of the toy, noise and the exact velocity at the points between."""
    action, noise = torch.randn(2, draws, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    action = MEAN + STD * action
    time = torch.full((draws,), t, dtype=torch.float64)
    return action, noise, velocity(interpolate(action, noise, time), time)


@pytest.mark.parametrize("t", [0.25, 0.5, 1.0])
def test_flow_matching_error_of_the_exact_velocity(t: float) -> None:
    """What x_t leaves open of noise - action: s^2 / V_t."""
    action, noise, v = toy_draws(200_000, t)
    error = flow_matching_loss(v, action, noise)
    expected = STD**2 / float(marginal(double(t))[1])
    assert float(error.mean()) == pytest.approx(expected, abs=4 * float(error.std()) / 200_000**0.5)
    worse = flow_matching_loss(v + 0.1, action, noise)
    assert float(worse.mean()) == pytest.approx(expected + 0.01, abs=4 * float(worse.std()) / 200_000**0.5)


def test_lookahead_advantage() -> None:
    """Of four decisions with rewards 0, 0, -1, 1; what is looked ahead to is one, two or all of them away."""
    value = double(0.1, 0.2, 0.3, 0.4)
    for then, reward, expected in (
        ([1, 2, 3, -1], double(0, 0, -1, 1), [0.1, 0.1, -0.9, 0.6]),
        ([2, 3, -1, -1], double(0, -1, 0, 1), [0.2, -0.8, -0.3, 0.6]),
        ([-1, -1, -1, -1], double(0, 0, 0, 1), [-0.1, -0.2, -0.3, 0.6]),
    ):
        assert lookahead_advantage(reward, value, torch.tensor(then)).tolist() == pytest.approx(expected)


def test_recap_calls_the_stated_share_positive_and_humans_always() -> None:
    advantage = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    human = torch.arange(1000) < 100
    advantage[human] = -9.0
    positive = better_than_usual(advantage, human, 0.3)
    assert bool(positive[human].all())
    assert float(positive[~human].float().mean()) == pytest.approx(0.3, abs=0.002)
    assert float(advantage[~human][positive[~human]].min()) > float(advantage[~human][~positive[~human]].max())
    assert torch.equal(better_than_usual(advantage[:5], human[:5], 0.3), human[:5])


def test_recap_calls_nothing_positive_that_gained_nothing() -> None:
    """Where a tenth did better than its value, a stated share of 0.3 does not make up the rest from failures."""
    advantage = torch.cat([torch.full((10,), 0.5), -torch.rand(90, generator=torch.Generator().manual_seed(0))])
    positive = better_than_usual(advantage, torch.zeros(100, dtype=torch.bool), 0.3)
    assert torch.equal(positive, advantage > 0)
    assert int((advantage > torch.quantile(advantage, 0.7)).sum()) == 30, "the quantile alone would"
    assert not better_than_usual(torch.zeros(4), torch.zeros(4, dtype=torch.bool), 0.3).any()


def test_recap_drops_the_condition_at_its_rate() -> None:
    kept = keep_condition(100_000, 0.1, torch.Generator().manual_seed(0))
    assert float(kept.double().mean()) == pytest.approx(0.9, abs=4 * (0.09 / 100_000) ** 0.5)
