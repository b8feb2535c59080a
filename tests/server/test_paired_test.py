"""The exact paired test: against every result by enumeration, scipy, and its error rates."""

from __future__ import annotations

import functools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pirl_server.registry.margin_test import p_worse_by, pass_probability, states_needed
from pirl_server.registry.paired_test import paired_test


def outcomes(gained: int, lost: int, count: int) -> tuple[list[bool], list[bool]]:
    same = count - gained - lost
    return [False] * gained + [True] * lost + [True] * same, [True] * gained + [False] * lost + [True] * same


def chance(gained: int, lost: int, count: int, gains: float, loses: float) -> float:
    """Of so many gains and losses: trinomial."""
    ways = comb(count, gained) * comb(count - gained, lost)
    return float(ways * gains**gained * loses**lost * (1 - gains - loses) ** (count - gained - lost))


def results(count: int) -> list[tuple[int, int]]:
    return [(gained, lost) for gained in range(count + 1) for lost in range(count + 1 - gained)]


@functools.cache
def passing(count: int, margin: float, alpha: float) -> list[tuple[int, int]]:
    """All results that pass."""
    return [each for each in results(count) if p_worse_by(margin, count, *each) <= alpha]


def passes(count: int, margin: float, worse_by: float, changing: float, alpha: float = 0.05) -> float:
    """Probability to pass, over all results."""
    gains, loses = (changing - worse_by) / 2, (changing + worse_by) / 2
    return sum(chance(*each, count, gains, loses) for each in passing(count, margin, alpha))


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (0, 5), (12, 4), (22, 22), (30, 10)])
def test_without_a_margin_it_is_mcnemars_one_sided_test(gained: int, lost: int) -> None:
    found = paired_test(*outcomes(gained, lost, 200), 0.0)
    oracle = binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue
    assert found.p_better == found.p_not_worse == pytest.approx(oracle)
    assert (found.gained, found.lost, found.episodes) == (gained, lost, 200)


def test_equal_outcomes_are_not_better_and_on_many_states_not_worse() -> None:
    """Worse by 5 points and no loss at all: 0.95 to the power of the states, which 50 are too few for."""
    for count in (50, 60):
        found = paired_test(*outcomes(0, 0, count), 0.05)
        assert found.p_not_worse == pytest.approx(0.95**count, rel=1e-3)
        assert found.p_better == 1.0
    assert paired_test(*outcomes(0, 0, 50), 0.0).p_not_worse == 1.0


@pytest.mark.parametrize("margin", [0.05, 0.15])
def test_a_version_that_is_worse_by_the_margin_passes_with_probability_alpha_at_most(margin: float) -> None:
    """By enumeration of all results of 16 states, whatever share of them changes sides."""
    for alpha in (0.05, 0.2):
        rates = [passes(16, margin, margin, changing, alpha) for changing in np.linspace(margin, 1.0, 40)]
        assert max(rates) <= alpha * 1.001
        assert max(rates) > 0.3 * alpha or margin * 16 < 2, "negative control: it is no test that rejects everything"


@settings(max_examples=40)
@given(st.integers(1, 40), st.data(), st.sampled_from([0.02, 0.05, 0.2]))
def test_p_falls_with_a_gain_and_rises_with_a_loss(count: int, data: st.DataObject, margin: float) -> None:
    changed = data.draw(st.integers(1, count))
    lost = data.draw(st.integers(0, changed - 1))
    better, worse = (p_worse_by(margin, count, changed - each, each) for each in (lost, lost + 1))
    assert 0.0 <= better <= worse <= 1.0


def test_the_probability_to_pass_is_that_of_all_results() -> None:
    for worse_by, changing in ((0.1, 0.3), (0.0, 0.2), (-0.1, 0.3)):
        found = pass_probability(0.1, 16, 0.05, -worse_by, changing)
        assert found == pytest.approx(passes(16, 0.1, worse_by, changing), abs=1e-6)


def test_the_states_that_are_needed_are_enough() -> None:
    """What a rejection recommends: an equal version passes in four of five cases, and rarely on a third of them."""
    for margin, changing in ((0.05, 0.1),):
        count = states_needed(margin, 0.05, changing)
        assert pass_probability(margin, count, 0.05, 0.0, changing) == pytest.approx(0.8, abs=0.08)
        assert pass_probability(margin, count // 3, 0.05, 0.0, changing) < 0.6


@pytest.mark.parametrize(("margin", "states"), [(0.0, 10), (1.0, 10), (-0.1, 10)])
def test_a_margin_out_of_bounds_is_rejected(margin: float, states: int) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        p_worse_by(margin, states, 1, 1)


def test_lists_of_different_length_are_rejected() -> None:
    with pytest.raises(ValueError, match="can't be paired"):
        paired_test([True], [True, False], 0.05)
