"""Health metrics against closed forms: equal-variance Gaussians at a known distance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from pirl_server.algorithm.metrics import (
    clip_fraction,
    effective_sample_size,
    entropy_per_step_and_dimension,
    explained_variance,
    kl_k1,
    kl_k2,
    kl_k3,
    masked_mean,
    std_of_drawn_steps,
    std_per_step_and_dimension,
)

N = 400_000
ALL = torch.ones(N, dtype=torch.bool)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def log_ratio(kl: float) -> Tensor:
    """log(new / old) of samples of the old policy, a unit Gaussian; the new one is sqrt(2 KL) away."""
    z = torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return z * math.sqrt(2.0 * kl) - kl


@pytest.mark.parametrize(
    ("kl", "clipped", "ess"),
    [(0.005, 0.045, 0.99), (0.02, 0.31, 0.96), (0.05, 0.52, 0.90), (0.1, 0.66, 0.82), (0.35, 0.82, 0.50)],
)
def test_metrics_of_a_known_shift(kl: float, clipped: float, ess: float) -> None:
    ratio = log_ratio(kl).exp()
    assert float(clip_fraction(ratio, ALL, 0.2, 0.2)) == pytest.approx(clipped, abs=0.01)
    shift = math.sqrt(2.0 * kl)
    inside = [Normal(0.0, 1.0).cdf(torch.tensor((math.log(edge) + kl) / shift)) for edge in (0.8, 1.2)]
    assert float(clip_fraction(ratio, ALL, 0.2, 0.2)) == pytest.approx(1.0 - float(inside[1] - inside[0]), abs=0.005)
    assert float(effective_sample_size(ratio, ALL)) == pytest.approx(math.exp(-2 * kl), abs=0.02)
    assert float(effective_sample_size(ratio, ALL)) == pytest.approx(ess, abs=0.02)


@pytest.mark.parametrize("kl", [0.005, 0.05, 0.1])
def test_kl_estimators(kl: float) -> None:
    """k1 and k3 have the true mean, k2 that of KL + KL^2 / 2; k3 varies less than k1."""
    log_r = log_ratio(kl)
    expected = {kl_k1: kl, kl_k2: kl + kl**2 / 2, kl_k3: kl}
    each = {kl_k1: -log_r, kl_k2: log_r**2 / 2, kl_k3: log_r.exp() - 1 - log_r}
    for estimator, value in expected.items():
        error = float(each[estimator].std()) / N**0.5
        assert float(estimator(log_r, ALL)) == pytest.approx(value, abs=4 * error)
    assert float(each[kl_k3].std()) < 0.5 * float(each[kl_k1].std())


def test_k2_and_k3_are_never_negative_and_k1_is() -> None:
    one = torch.ones(1, dtype=torch.bool)
    for log_r in torch.linspace(-3, 3, 61, dtype=torch.float64):
        assert float(kl_k3(log_r[None], one)) >= 0.0
        assert float(kl_k2(log_r[None], one)) >= 0.0
    assert float(kl_k1(double(0.1), one)) < 0.0


def test_explained_variance() -> None:
    target, valid = double(1.0, 2.0, 3.0, 4.0), torch.ones(4, dtype=torch.bool)
    assert float(explained_variance(target, target, valid)) == 1.0
    assert float(explained_variance(torch.full_like(target, 9.0), target, valid)) == pytest.approx(0.0)
    assert float(explained_variance(-target, target, valid)) == pytest.approx(-3.0)


def test_what_is_not_valid_is_not_seen() -> None:
    valid = torch.tensor([True, False])
    assert float(masked_mean(double(3.0, 1e9), valid)) == 3.0
    assert float(masked_mean(double(3.0, 1.0), ~valid & valid)) == 0.0


def test_std_and_entropy_by_step_and_dimension() -> None:
    """One size per step and dimension, over batch and horizon: [K, D]."""
    table_KD = torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])
    std_BKHD = table_KD[None, :, None, :].expand(5, 2, 4, 3)
    torch.testing.assert_close(std_per_step_and_dimension(std_BKHD), table_KD)
    torch.testing.assert_close(entropy_per_step_and_dimension(std_BKHD), Normal(0.0, table_KD).entropy())


def test_std_of_the_steps_that_a_hybrid_batch_drew() -> None:
    index = torch.tensor([0, 2, 2, -1])
    std_BHD = torch.tensor([0.5, 0.1, 0.3, 0.0])[:, None, None].expand(4, 2, 3)
    table = std_of_drawn_steps(std_BHD, index, 3)
    torch.testing.assert_close(table[[0, 2]], torch.tensor([[0.5], [0.2]]).expand(2, 3))
    assert torch.isnan(table[1]).all()
