"""Is a version on robots not worse than another by a margin? Judged after each labelled episode; fixed beforehand.

The mirror image of `registry.sequential_test`: that one ends a trial because the version is worse, this one because it
is not. The other version succeeded in s of n episodes. Were the new one worse by the margin, its success rate would be
that of the other, known as Jeffreys' posterior, minus the margin. `most_failures` gives the numbers of failures with
which the version is accepted, chosen so that a version which is worse by the margin reaches any of them, at any of the
looks, with probability alpha at most.

Shape letters: G rates that are averaged over.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PRIOR = 0.5
"""Jeffreys: half a success and half a failure beside those that were seen"""
GRID = 200
"""success rates of the other version that are averaged over"""
BETTER, HOPELESS = 0.05, 0.02
"""a trial is hopeless when it has spoilt all but so large a share of the chance that a version has which is so much
better; it would only keep a robot on a version that is worse"""
LOOKS = 200
"""labelled episodes after which a version that was not accepted is not going to be"""


@lru_cache(maxsize=256)
def most_failures(successes: int, episodes: int, margin: float, alpha: float, looks: int = LOOKS) -> tuple[int, ...]:
    """Return for 1, 2, ... `looks` episodes with how many failures the version is accepted; -1: with none."""
    rates_G, weights_G = _posterior(successes, episodes)
    fails_G = np.minimum(1.0, 1.0 - rates_G + margin)
    tails = _tails(fails_G, weights_G, looks)
    levels = np.unique(np.concatenate([row[row <= alpha] for row in tails]))
    low, high = 0, len(levels)
    while low < high:  # the chance to be accepted rises with the level of each look
        middle = (low + high) // 2
        if crossing(_at(tails, levels[middle]), fails_G, weights_G)[-1] <= alpha:
            low = middle + 1
        else:
            high = middle
    return _at(tails, levels[low - 1] if low else 0.0)


def crossing(
    limits: tuple[int, ...], fails_G: NDArray[np.float64], weights_G: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [looks] the probability to have been accepted by each look, averaged over [G] failure rates."""
    least, most = 0, max(*limits, 0)  # failures of those that may still be accepted
    alive, fails_G1 = np.zeros((len(fails_G), most + 1)), fails_G[:, None]
    alive[:, 0], reached, found = 1.0, 0.0, np.zeros(len(limits))
    for seen, limit in enumerate(limits):
        before = alive[:, least : min(seen + 1, most) + 1]
        after = before * (1.0 - fails_G1)
        after[:, 1:] += before[:, :-1] * fails_G1
        before[:] = after
        reached += float(weights_G @ alive[:, least : limit + 1].sum(axis=1))
        alive[:, least : limit + 1] = 0.0
        least, found[seen] = max(least, limit + 1), reached
    return found


def more_successes(limits: tuple[int, ...], seen: int, failed: int) -> int | None:
    """Return after how many further successes in a row the version is accepted; None: beyond the last look."""
    return next((look - seen for look in range(max(seen, 1), len(limits) + 1) if limits[look - 1] >= failed), None)


def expected_more(limits: tuple[int, ...], seen: int, failed: int, rate: float) -> int | None:
    """Return after how many further episodes a version of this success rate is accepted every other time.

    None: less often than that, however many.
    """
    reached = _reached(limits, seen, failed, rate)
    return next((look for look, chance in enumerate(reached, 1) if chance >= 0.5), None)


def hopeless(limits: tuple[int, ...], seen: int, failed: int, rate: float) -> bool:
    """Whether a version that is a little better than one of this success rate is not accepted any more, as good as.

    Ending such a trial accepts no version more often, and costs a better one that share of its chance at most.
    """
    better = min(rate + BETTER, 1.0)
    at_first = _reached(limits, 0, 0, better)[-1]
    return seen > 0 and bool(_reached(limits, seen, failed, better)[-1] < HOPELESS * at_first)


@lru_cache(maxsize=4096)
def _reached(limits: tuple[int, ...], seen: int, failed: int, rate: float) -> NDArray[np.float64]:
    """[further looks, at least one] the probability to have been accepted by each."""
    if seen >= len(limits):
        return np.zeros(1)
    rest = tuple(max(-1, limit - failed) for limit in limits[seen:])
    return crossing(rest, np.array([1.0 - rate]), np.ones(1))


def _posterior(successes: int, episodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[G] success rates of the other version and [G] their weights."""
    rates_G = (np.arange(GRID) + 0.5) / GRID
    first, second = successes + PRIOR, episodes - successes + PRIOR
    logs_G = (first - 1.0) * np.log(rates_G) + (second - 1.0) * np.log1p(-rates_G)
    weights_G = np.exp(logs_G - logs_G.max())
    return rates_G, weights_G / weights_G.sum()


def _tails(fails_G: NDArray[np.float64], weights_G: NDArray[np.float64], looks: int) -> list[NDArray[np.float64]]:
    """[failures] P(at most 0, 1, ...) after 1, 2, ... episodes."""
    chances, tails = np.ones((len(fails_G), 1)), []
    for _ in range(looks):
        success = np.pad(chances, ((0, 0), (0, 1))) * (1.0 - fails_G[:, None])
        chances = success + np.pad(chances, ((0, 0), (1, 0))) * fails_G[:, None]
        tails.append(np.cumsum(weights_G @ chances))
    return tails


def _at(tails: list[NDArray[np.float64]], level: float) -> tuple[int, ...]:
    return tuple(int(np.searchsorted(row, level, "right")) - 1 for row in tails)
