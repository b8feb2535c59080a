"""The offline bound against closed forms: a Gaussian bandit whose advantage is the action itself.

Acted: a ~ N(0, 1). New: a ~ N(d, 1), so that w = exp(d a - d^2 / 2), and the true gain is d.
"""

from __future__ import annotations

import math

import pytest
import torch

from pirl_server.algorithm.off_policy_gain import bootstrap_lower_bound, pessimistic_gain

DRAWS = 400_000


def density(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def below(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def moment(low: float, high: float, shift: float) -> float:
    """Integral of a N(a; shift, 1) from low to high."""
    return shift * (below(high - shift) - below(low - shift)) + density(low - shift) - density(high - shift)


def exact(shift: float, cap: float, both: bool = False) -> float:
    """Mean of the pessimistic gain, or with `both` of the one that truncates bad decisions too."""
    edge, far = math.log(cap) / shift + shift / 2.0, 40.0
    if shift > 0:  # weights are high above the edge, which is positive for a cap above 1
        return moment(-far, edge, shift) + cap * moment(edge, far, 0.0)
    if both:  # and here below it, among the bad ones
        return moment(edge, far, shift) + cap * moment(-far, edge, 0.0)
    return shift


@pytest.mark.parametrize("shift", [0.2, 0.6, -0.2, -0.6])
@pytest.mark.parametrize("cap", [1.2, 2.0])
def test_its_mean_is_the_closed_form_and_never_above_the_gain(shift: float, cap: float) -> None:
    action = torch.randn(DRAWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = pessimistic_gain(shift * action - shift**2 / 2.0, action, cap)
    assert abs(float(found.mean()) - exact(shift, cap)) < 4.0 * float(found.std()) / math.sqrt(DRAWS)
    assert exact(shift, cap) <= shift + 1e-9


def test_truncating_bad_decisions_too_would_call_a_worse_policy_better_than_it_is() -> None:
    assert exact(-0.6, 1.2, both=True) > -0.6 + 0.1
    assert exact(-0.6, 1.2) == -0.6


def test_no_change_gains_nothing_whatever_the_baseline() -> None:
    advantage = torch.randn(100, generator=torch.Generator().manual_seed(1)) + 3.0
    assert torch.equal(pessimistic_gain(torch.zeros(100), advantage, 2.0), torch.zeros(100))


def test_a_wrong_baseline_does_not_move_the_mean() -> None:
    """Without the 1 that is subtracted it would: by the baseline's error."""
    action = torch.randn(DRAWS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight, wrong = 0.3 * action - 0.045, action - 5.0
    found = pessimistic_gain(weight, wrong, 1e9)
    assert abs(float(found.mean()) - 0.3) < 4.0 * float(found.std()) / math.sqrt(DRAWS)
    assert float((weight.exp() * wrong).mean()) < -4.0


def test_the_bound_of_two_episodes_is_by_enumeration() -> None:
    """Resampled means are 0, 1/2 and 1 with probabilities 1/4, 1/2, 1/4."""
    gain, generator = torch.tensor([0.0, 1.0]), torch.Generator().manual_seed(0)
    quantiles = [float(bootstrap_lower_bound(gain, alpha, 20_000, generator)) for alpha in (0.2, 0.5, 0.9)]
    assert quantiles == [0.0, 0.5, 1.0]


def test_the_bound_of_many_episodes_is_that_of_the_normal_distribution_and_covers() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(300):
        gain = torch.randn(60, generator=generator)
        bound = float(bootstrap_lower_bound(gain, 0.05, 400, generator))
        assert abs(bound - float(gain.mean() - 1.645 * gain.std() / math.sqrt(60))) < 0.12
        covered += bound <= 0.0
    assert 0.90 < covered / 300 < 0.985
