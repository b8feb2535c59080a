"""Gaussian densities: against torch.distributions, which entries count, and their gradients."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gaussian_toy import scalar, time
from torch.distributions import Normal

from pirl_server.algorithm.density import entropy, log_prob, sum_dims, sum_executed
from pirl_server.algorithm.flow import Transition, per_chunk, time_at
from pirl_server.algorithm.flow_sde import transition

STEPS, DT = 4, 0.25
SDE: Transition = partial(transition, noise_level=0.5)


def test_equals_torch_distributions() -> None:
    x, mean = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    std = torch.tensor([0.05, 0.5, 3.0])[:, None, None]
    torch.testing.assert_close(log_prob(x, mean, std), Normal(mean, std).log_prob(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy(std), Normal(0.0, std).entropy())


def test_a_deterministic_step_has_no_density_and_finite_gradients() -> None:
    x, mean = torch.ones(1, 2, 2), torch.zeros(1, 2, 2, requires_grad=True)
    std = torch.zeros(1, 1, 1, requires_grad=True)
    out = log_prob(x, mean, std)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(out, torch.zeros_like(out))
    assert mean.grad is not None
    assert std.grad is not None
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(std.grad).all()


def test_only_the_executed_part_counts() -> None:
    per_element = torch.arange(24, dtype=torch.float64).view(2, 4, 3)
    ours = sum_executed(per_element, torch.tensor([1, 4]), action_dim=2)
    assert ours.tolist() == [0.0 + 1.0, sum(12.0 + 3 * h + d for h in range(4) for d in range(2))]
    assert sum_executed(per_element, torch.tensor([0, 0]), action_dim=2).tolist() == [0.0, 0.0]


def test_one_ratio_per_control_step() -> None:
    per_element = torch.arange(24, dtype=torch.float64).view(2, 4, 3)
    assert sum_dims(per_element, action_dim=2)[0].tolist() == [1.0, 7.0, 13.0, 19.0]
    whole = sum_executed(per_element, torch.tensor([4, 4]), action_dim=2)
    assert torch.equal(sum_dims(per_element, action_dim=2).sum(dim=1), whole)


def test_gradient_with_respect_to_the_velocity() -> None:
    """d log p / dv = (d mu / dv)(x' - mu) / std^2, d mu / dv = -dt (1 + sigma^2 (1 - t) / (2 t))."""
    t = time_at(torch.arange(STEPS), STEPS, torch.float64)
    x, following = scalar(0.2).expand(4, 1, 1), scalar(-0.4).expand(4, 1, 1)
    v = torch.full((4, 1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    mean, std = SDE(x, v, t, DT)
    (slope,) = torch.autograd.grad(mean.sum(), v, retain_graph=True)
    torch.testing.assert_close(slope.flatten(), torch.tensor([-0.25, *[-0.28125] * 3], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(log_prob(following, mean, std).sum(), v)
    torch.testing.assert_close(gradient, slope * (following - mean.detach()) / std**2)


def test_gradient_with_respect_to_the_log_std() -> None:
    log_std = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(log_prob(scalar(1.7), scalar(0.0), log_std.exp()).sum(), log_std)
    assert float(gradient) == pytest.approx(1.7**2 - 1.0, abs=1e-12)


def test_gradcheck_through_a_small_network() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    x, following = torch.randn(2, 2, 5, 3, dtype=torch.float64, generator=generator)

    def density(weight: torch.Tensor) -> torch.Tensor:
        t = torch.tensor([1.0, 0.25], dtype=torch.float64)
        time_feature = per_chunk(t).expand(2, 5, 1)
        v = torch.tanh(torch.cat([x, time_feature], dim=-1) @ weight.T)
        return log_prob(following, *SDE(x, v, t, DT)).sum()

    assert torch.autograd.gradcheck(density, (weight,))


def test_the_score_of_the_policy_has_zero_mean() -> None:
    """E[d log p / d theta] = 0 over the policy's own samples, within four standard errors."""
    n = 200_000
    z = torch.randn(n, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    v = torch.zeros(n, 1, 1, dtype=torch.float64, requires_grad=True)
    mean, std = SDE(scalar(0.3).expand(n, 1, 1), v, time(0.5), DT)
    (gradient,) = torch.autograd.grad(log_prob((mean + std * z).detach(), mean, std).sum(), v)
    assert abs(float(gradient.mean())) < 4 * float(gradient.std()) / n**0.5
    shifted = (mean + std * (z + 0.1)).detach()
    (biased,) = torch.autograd.grad(log_prob(shifted, *SDE(scalar(0.3), v, time(0.5), DT)).sum(), v)
    assert abs(float(biased.mean())) > 4 * float(biased.std()) / n**0.5
