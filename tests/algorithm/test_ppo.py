"""Clipped policy loss, its health metrics, the value loss and the advantage transforms, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pirl_server.algorithm.advantage import group_relative, normalise
from pirl_server.algorithm.awr import advantage_weight, weighted_flow_matching_loss
from pirl_server.algorithm.ppo import explained_variance, policy_loss, value_loss

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


@pytest.mark.parametrize(
    ("kl", "clipped", "ess"), [(0.005, 0.045, 0.99), (0.02, 0.31, 0.96), (0.05, 0.52, 0.90), (0.1, 0.66, 0.82)]
)
def test_metrics_of_a_known_shift(kl: float, clipped: float, ess: float) -> None:
    """Equal-variance Gaussians: KL = shift^2 / (2 std^2), ESS = exp(-2 KL), and the known clip fraction."""
    n, shift = 400_000, math.sqrt(2.0 * kl)
    z = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_ratio = z * shift - kl
    metrics = policy_loss(log_ratio, torch.zeros(n).double(), z, torch.ones(n, dtype=torch.bool))[1]
    assert float(metrics["approx_kl"]) == pytest.approx(kl, rel=0.05)
    assert float(metrics["clip_fraction"]) == pytest.approx(clipped, abs=0.01)
    assert float(metrics["ess"]) == pytest.approx(math.exp(-2 * kl), abs=0.01)
    assert float(metrics["ess"]) == pytest.approx(ess, abs=0.015)


def test_k3_is_never_negative() -> None:
    for log_ratio in torch.linspace(-3, 3, 61, dtype=torch.float64):
        one = torch.ones(1, dtype=torch.bool)
        assert float(policy_loss(log_ratio[None], double(0.0), double(1.0), one)[1]["approx_kl"]) >= 0.0


def test_value_loss_forms() -> None:
    value, target, old = double(1.0, 3.0), double(0.0, 0.0), double(0.9, 0.0)
    valid = torch.ones(2, dtype=torch.bool)
    assert float(value_loss(value, target, old, valid)[0]) == pytest.approx((0.5 + 4.5) / 2)
    assert float(value_loss(value, target, old, valid, huber_delta=1.0)[0]) == pytest.approx((0.5 + 2.5) / 2)
    # a clipped move looks better than it is (0.2 instead of 3): the worse of the two is kept
    assert float(value_loss(value, target, old, valid, clip=0.2)[0]) == pytest.approx((0.5 + 4.5) / 2)
    toward = value_loss(double(0.1), double(0.0), double(3.0), torch.ones(1, dtype=torch.bool), clip=0.2)
    assert float(toward[0]) == pytest.approx(0.5 * 2.8**2)


def test_explained_variance() -> None:
    target, valid = double(1.0, 2.0, 3.0, 4.0), ALL
    assert float(explained_variance(target, target, valid)) == 1.0
    assert float(explained_variance(torch.full_like(target, 9.0), target, valid)) == pytest.approx(0.0)
    assert float(explained_variance(-target, target, valid)) == pytest.approx(-3.0)


def test_normalised_over_valid_entries_only() -> None:
    advantage, valid = double(1.0, 2.0, 3.0, 1e9), torch.tensor([True, True, True, False])
    ours = normalise(advantage, valid)
    assert float(ours[:3].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(ours[:3].std(correction=0)) == pytest.approx(1.0, abs=1e-4)
    assert float(ours[3]) == 0.0
    assert torch.equal(normalise(double(5.0, 5.0), torch.ones(2, dtype=torch.bool)), double(0.0, 0.0))


def test_group_relative_advantages() -> None:
    two = group_relative(double(1.0, 0.0, 0.0, 1.0)[None])
    assert two[0].tolist() == pytest.approx([0.866024, -0.866024, -0.866024, 0.866024], abs=1e-6)
    one = group_relative(double(1.0, *[0.0] * 7)[None])[0]
    assert one.tolist() == pytest.approx([2.474867, *[-0.353553] * 7], abs=1e-5)
    assert group_relative(torch.ones(2, 4)).abs().max() == 0.0


def test_advantage_weights() -> None:
    weight = advantage_weight(double(0.0, 1.0, -1.0, 50.0), beta=0.5, cap=20.0)
    assert weight.tolist() == pytest.approx([1.0, math.exp(2.0), math.exp(-2.0), 20.0])
    loss = torch.tensor([1.0, 3.0]).double()[:, None, None].expand(2, 4, 2)
    assert float(weighted_flow_matching_loss(loss, double(1.0, 1.0))) == pytest.approx(2.0)
    assert float(weighted_flow_matching_loss(loss, double(3.0, 1.0))) == pytest.approx(1.5)
