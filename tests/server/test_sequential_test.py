"""The rules that end a canary and a watch: exact error rates, by enumeration of every sequence."""

from __future__ import annotations

from itertools import pairwise, product
from math import comb

import pytest

from pirl_server.registry.sequential_test import crossing, false_alarm, limits

BASELINES = [(s, n) for n in (0, 10, 20, 50, 100) for s in sorted({0, n // 2, (4 * n) // 5, n})]


@pytest.mark.parametrize(("successes", "episodes"), BASELINES)
@pytest.mark.parametrize("looks", [5, 20, 50])
def test_an_equal_version_is_ended_with_probability_alpha_at_most(successes: int, episodes: int, looks: int) -> None:
    found = limits(successes, episodes, looks, 0.05)
    assert len(found) == looks
    assert false_alarm(found, successes, episodes) <= 0.05
    assert all(1 <= limit <= seen + 1 for seen, limit in enumerate(found, 1))
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(found)), "never easier to reach later"


def test_the_chance_to_reach_a_limit_is_the_sum_over_all_sequences() -> None:
    found = limits(8, 10, 9, 0.2)

    def urn(seen: int, failed: int) -> float:
        return (2.5 + failed) / (11 + seen)

    total = 0.0
    for sequence in product((False, True), repeat=9):
        chance, failed, reached = 1.0, 0, False
        for seen, fails in enumerate(sequence):
            chance *= urn(seen, failed) if fails else 1.0 - urn(seen, failed)
            failed += fails
            reached |= failed >= found[seen]
        total += chance if reached else 0.0
    assert 0.0 < total == pytest.approx(crossing(found, urn), abs=1e-12)
    assert total == pytest.approx(false_alarm(found, 8, 10), abs=1e-12)


def test_a_lower_level_would_end_more_equal_versions() -> None:
    """The limits are the tightest that are allowed: one failure fewer everywhere is beyond alpha."""
    found = limits(18, 20, 20, 0.05)
    assert false_alarm(tuple(max(1, limit - 1) for limit in found), 18, 20) > 0.05


@pytest.mark.parametrize("looks", [20, 50])
@pytest.mark.parametrize(("successes", "episodes"), [(16, 20), (40, 50), (80, 100), (18, 20), (50, 50)])
def test_a_version_that_only_fails_is_ended_within_three_episodes(successes: int, episodes: int, looks: int) -> None:
    """Where production succeeds four times in five, known from 20 episodes."""
    found = limits(successes, episodes, looks, 0.05)
    assert next(seen for seen, limit in enumerate(found, 1) if seen >= limit) <= 3


def test_where_production_succeeds_every_other_time_it_takes_seven() -> None:
    found = limits(50, 100, 50, 0.05)
    assert next(seen for seen, limit in enumerate(found, 1) if seen >= limit) == 7


@pytest.mark.parametrize("rate", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_over_all_baselines_of_a_rate_the_false_alarm_stays_near_alpha(rate: float) -> None:
    """Not the urn's, but the true chance when both versions succeed at the rate: at most 0.06."""
    for episodes in (20, 100):
        total = 0.0
        for successes in range(episodes + 1):
            weight = comb(episodes, successes) * rate**successes * (1 - rate) ** (episodes - successes)
            if weight > 1e-9:
                found = limits(successes, episodes, 20, 0.05)
                total += weight * crossing(found, lambda seen, failed: 1.0 - rate)
        assert total <= 0.06


@pytest.mark.parametrize(("rate", "least"), [(0.4, 0.9), (0.2, 0.99), (0.0, 1.0)])
def test_a_much_worse_version_does_not_pass_twenty_episodes(rate: float, least: float) -> None:
    found = limits(40, 50, 20, 0.05)
    assert crossing(found, lambda seen, failed: 1.0 - rate) >= least


def test_without_a_baseline_outcomes_say_nothing() -> None:
    assert crossing(limits(0, 0, 20, 0.05), lambda seen, failed: 1.0) == 0.0
