"""The exact paired test: against sums by hand, scipy, and its error rates by enumeration."""

from __future__ import annotations

from math import comb

import pytest
from scipy.stats import binom, binomtest

from pirl_server.registry.paired_test import paired_test


def outcomes(gained: int, lost: int, count: int) -> tuple[list[bool], list[bool]]:
    same = count - gained - lost
    return [False] * gained + [True] * lost + [True] * same, [True] * gained + [False] * lost + [True] * same


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (0, 5), (12, 4), (22, 22), (30, 10)])
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.1])
def test_p_is_the_binomial_tail(gained: int, lost: int, margin: float) -> None:
    found = paired_test(*outcomes(gained, lost, 200), margin)
    changed = gained + lost
    loss = min(1.0, (1 + margin * 200 / changed) / 2)
    assert found.p_not_worse == pytest.approx(binom.cdf(lost, changed, loss), abs=1e-12)
    assert found.p_better == pytest.approx(binomtest(gained, changed, 0.5, alternative="greater").pvalue)
    assert (found.gained, found.lost, found.episodes) == (gained, lost, 200)


def test_equal_outcomes_are_not_worse_and_not_better() -> None:
    found = paired_test(*outcomes(0, 0, 50), 0.05)
    assert (found.p_not_worse, found.p_better) == (0.0, 1.0)
    assert paired_test(*outcomes(0, 0, 50), 0.0).p_not_worse == 1.0


def passes(worse_by: float, changing: float, count: int, margin: float) -> float:
    """Probability that p_not_worse <= 0.05, over all numbers of gains and losses."""
    loses, gains = (changing + worse_by) / 2, (changing - worse_by) / 2
    total = 0.0
    for gained in range(count + 1):
        for lost in range(count + 1 - gained):
            chance = (
                comb(count, gained) * comb(count - gained, lost) * gains**gained * loses**lost
                * (1 - changing) ** (count - gained - lost)
            )  # fmt: skip
            if chance > 1e-10 and paired_test(*outcomes(gained, lost, count), margin).p_not_worse <= 0.05:
                total += chance
    return total


def test_error_rates_of_the_gate() -> None:
    """Of 100 states, a fifth changing sides: 5 points margin. Numbers of docs/adr/0014."""
    assert passes(0.05, 0.2, 100, 0.05) < 0.06, "worse by the margin"
    assert passes(0.15, 0.2, 100, 0.05) < 0.001, "worse by 15 points"
    assert passes(-0.1, 0.2, 100, 0.05) > 0.9, "better by 10 points"


def test_lists_of_different_length_are_rejected() -> None:
    with pytest.raises(ValueError, match="can't be paired"):
        paired_test([True], [True, False], 0.05)
