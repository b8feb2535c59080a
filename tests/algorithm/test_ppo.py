"""Clipped policy loss, value loss and objective, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pirl_server.algorithm.ppo import beyond_target, objective, policy_loss, value_loss

ALL = torch.ones(4, dtype=torch.bool)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_before_the_first_step_nothing_moves() -> None:
    logp, advantage = double(-3.0, 1.0, 0.5, 7.0), double(1.0, -2.0, 3.0, 0.25)
    loss, metrics = policy_loss(logp.requires_grad_(), logp.detach(), advantage, ALL)
    assert float(loss.detach()) == -float(advantage.mean())
    assert {k: float(v) for k, v in metrics.items()} == {
        "approx_kl": 0.0,
        "clip_fraction": 0.0,
        "ess": 1.0,
        "max_log_ratio": 0.0,
    }
    (gradient,) = torch.autograd.grad(loss, logp)
    torch.testing.assert_close(gradient, -advantage / 4)


def test_clipping_stops_the_gradient_only_where_it_should() -> None:
    """Gains are capped, losses are not: ratios 1.5 and 0.5 with advantages of both signs."""
    old = torch.zeros(4, dtype=torch.float64)
    logp = double(math.log(1.5), math.log(0.5), math.log(1.5), math.log(0.5)).requires_grad_()
    loss, metrics = policy_loss(logp, old, double(1.0, 1.0, -1.0, -1.0), ALL)
    assert float(loss.detach()) == pytest.approx((-1.2 - 0.5 + 1.5 + 0.8) / 4)
    (gradient,) = torch.autograd.grad(loss, logp)
    assert (gradient != 0).tolist() == [False, True, True, False]
    assert float(metrics["clip_fraction"]) == 1.0


def test_uneven_clip_range() -> None:
    logp, old, valid = double(math.log(1.25)), double(0.0), torch.ones(1, dtype=torch.bool)
    assert float(policy_loss(logp, old, double(1.0), valid, clip_high=0.28)[1]["clip_fraction"]) == 0.0
    assert float(policy_loss(logp, old, double(1.0), valid, clip_high=0.2)[1]["clip_fraction"]) == 1.0


def test_masked_decisions_change_nothing() -> None:
    logp, old, advantage = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    masked = policy_loss(logp, old, advantage, valid)
    alone = policy_loss(logp[valid], old[valid], advantage[valid], torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(masked[0], alone[0])
    for name, value in alone[1].items():
        torch.testing.assert_close(masked[1][name], value)
    nothing = policy_loss(logp, old, advantage, torch.zeros(6, dtype=torch.bool))
    assert float(nothing[0]) == 0.0


def test_value_loss_forms() -> None:
    value, target, old = double(1.0, 3.0), double(0.0, 0.0), double(0.9, 0.0)
    valid = torch.ones(2, dtype=torch.bool)
    assert float(value_loss(value, target, old, valid)[0]) == pytest.approx((0.5 + 4.5) / 2)
    assert float(value_loss(value, target, old, valid, huber_delta=1.0)[0]) == pytest.approx((0.5 + 2.5) / 2)
    # a clipped move looks better than it is (0.2 instead of 3): the worse of the two is kept
    assert float(value_loss(value, target, old, valid, clip=0.2)[0]) == pytest.approx((0.5 + 4.5) / 2)
    toward = value_loss(double(0.1), double(0.0), double(3.0), torch.ones(1, dtype=torch.bool), clip=0.2)
    assert float(toward[0]) == pytest.approx(0.5 * 2.8**2)


def test_dual_clip_bounds_what_a_bad_decision_can_cost() -> None:
    """Ratio 10 with A = -1 costs 10, with c = 3 only 3, and then has no gradient; good decisions are as before."""
    logp = double(math.log(10.0), math.log(10.0), math.log(2.0)).requires_grad_()
    advantage, valid = double(-1.0, 1.0, -1.0), torch.ones(3, dtype=torch.bool)
    old = torch.zeros(3, dtype=torch.float64)
    assert float(policy_loss(logp.detach(), old, advantage, valid)[0]) == pytest.approx((10.0 - 1.2 + 2.0) / 3)
    loss = policy_loss(logp, old, advantage, valid, dual_clip=3.0)[0]
    assert float(loss.detach()) == pytest.approx((3.0 - 1.2 + 2.0) / 3)
    (gradient,) = torch.autograd.grad(loss, logp)
    assert (gradient != 0).tolist() == [False, False, True]


def test_one_ratio_per_denoise_step() -> None:
    """The loss takes decisions x steps as it takes decisions: the mean over all of them."""
    generator = torch.Generator().manual_seed(0)
    logp, old = 0.1 * torch.randn(2, 6, 4, dtype=torch.float64, generator=generator)
    advantage_B = torch.randn(6, dtype=torch.float64, generator=generator)
    valid_BK = torch.ones(6, 4, dtype=torch.bool)
    together = policy_loss(logp, old, advantage_B[:, None].expand(6, 4), valid_BK)[0]
    each = [policy_loss(logp[:, k], old[:, k], advantage_B, valid_BK[:, k])[0] for k in range(4)]
    torch.testing.assert_close(together, torch.stack(each).mean())


def test_the_objective_weighs_its_terms() -> None:
    """Entropy is gained, everything else is lost."""
    terms = [double(x)[0].requires_grad_() for x in (1.0, 2.0, 3.0, 4.0)]
    total = objective(*terms, value_weight=0.5, entropy_weight=0.005, imitation_weight=0.1)
    assert float(total.detach()) == pytest.approx(1.0 + 1.0 - 0.015 + 0.4)
    assert [float(g) for g in torch.autograd.grad(total, terms)] == pytest.approx([1.0, 0.5, -0.005, 0.1])


def test_the_target_stops_an_update() -> None:
    assert not beyond_target(0.075, 0.075)
    assert beyond_target(0.0751, 0.075)
    assert beyond_target(float("nan"), 0.075)
