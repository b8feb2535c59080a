"""Is a version failing more often than another did? Judged after each of its episodes; the rule is fixed beforehand.

The other version succeeded in s of n episodes. If the new one is no worse, its failures are drawn from the same unknown
rate: with Jeffreys' prior on that rate they follow Polya's urn, whose next draw is a failure with probability
(n - s + 1/2 + failures so far) / (n + 1 + episodes so far). `limits` gives the numbers of failures that end the trial,
chosen so that an urn of that kind reaches any of them, at any of the looks, with probability `alpha` at most.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import exp, lgamma

PRIOR = 0.5
"""Jeffreys: half a success and half a failure beside those that were seen"""


@lru_cache(maxsize=256)
def limits(successes: int, episodes: int, looks: int, alpha: float) -> tuple[int, ...]:
    """Return for 1, 2, ... `looks` episodes how many failures are too many; one more than the episodes: no number is.

    All looks have the same level, the highest whose total chance of a false alarm is `alpha` at most.
    """
    failures = episodes - successes
    tails = [_tails(failures, successes, count) for count in range(1, looks + 1)]
    levels = sorted({tail for row in tails for tail in row if tail <= alpha})
    low, high = 0, len(levels)
    while low < high:  # the false alarm rises with the level
        middle = (low + high) // 2
        if false_alarm(_at(tails, levels[middle]), successes, episodes) <= alpha:
            low = middle + 1
        else:
            high = middle
    return _at(tails, levels[low - 1] if low else 0.0)


def false_alarm(failures_at: tuple[int, ...], successes: int, episodes: int) -> float:
    """Return the probability that an equal version reaches one of these limits."""
    first = episodes - successes + PRIOR
    return crossing(failures_at, lambda seen, failed: (first + failed) / (episodes + 2 * PRIOR + seen))


def chance_of_so_many(failed: int, count: int, failed_before: int, count_before: int) -> float:
    """Return the probability of at least `failed` of `count` after so many before, where both have the same rate."""
    return _tails(failed_before, count_before - failed_before, count)[failed]


def crossing(failures_at: tuple[int, ...], fails: Callable[[int, int], float]) -> float:
    """Return the probability of reaching a limit; `fails(seen, failed)` is that of failing next.

    Exact: the distribution of failures among the sequences that have not reached a limit, episode by episode.
    """
    alive, reached = {0: 1.0}, 0.0
    for seen, limit in enumerate(failures_at):
        after: dict[int, float] = {}
        for failed, weight in alive.items():
            chance = fails(seen, failed)
            after[failed + 1] = after.get(failed + 1, 0.0) + weight * chance
            after[failed] = after.get(failed, 0.0) + weight * (1.0 - chance)
        reached += sum(weight for failed, weight in after.items() if failed >= limit)
        alive = {failed: weight for failed, weight in after.items() if failed < limit}
    return reached


def _tails(failures: int, successes: int, count: int) -> list[float]:
    """P(at least 0, 1, ... `count` failures in `count` episodes): beta-binomial."""
    first, second = failures + PRIOR, successes + PRIOR
    chances = [
        exp(_choose(count, failed) + _beta(first + failed, second + count - failed) - _beta(first, second))
        for failed in range(count + 1)
    ]
    tails, above = list[float](), 0.0
    for chance in reversed(chances):
        above += chance
        tails.append(above)
    return tails[::-1]


def _at(tails: list[list[float]], level: float) -> tuple[int, ...]:
    return tuple(next((failed for failed, tail in enumerate(row) if tail <= level), len(row)) for row in tails)


def _choose(count: int, failed: int) -> float:
    return lgamma(count + 1) - lgamma(failed + 1) - lgamma(count - failed + 1)


def _beta(first: float, second: float) -> float:
    return lgamma(first) + lgamma(second) - lgamma(first + second)
