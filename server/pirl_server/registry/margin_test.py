"""Exact test that a version is not worse by a margin on the same initial states, whatever share of them changes sides.

Of n states, some change sides: `gained` became successes and `lost` became failures. Results are ordered by the score
statistic of a version that is worse by exactly the margin; p is the largest probability of a result at least as good,
over all shares of changing states. So the probability that a version which is worse by the margin passes at level alpha
is alpha at most, whatever the share (up to the spacing of the grid of shares).

Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
Statistics in Medicine 17 (1998), for the statistic; Sidik, "Exact unconditional tests for testing non-inferiority in
matched-pairs design", Statistics in Medicine 22 (2003), for the maximum.

Shape letters: C numbers of changed states, L numbers of losses.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, lgamma, log, log1p, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

GRID = 300
"""shares of changing states that are tried"""
TAIL_SDS = 8.0
"""numbers of changed states further from their mean are left out: their probability is below 1e-14"""
CLOSE = 1e-9
"""difference of two values of the statistic that are the same"""


@lru_cache(maxsize=4096)
def p_worse_by(margin: float, states: int, gained: int, lost: int) -> float:
    """Return the largest probability of a result at least as good, for a version that is worse by the margin.

    Raises ValueError for a margin that is not above 0 and below 1.
    """
    if not 0.0 < margin < 1.0:
        raise ValueError(f"margin {margin} must lie between 0 and 1")
    most_C = _most_losses(margin, states, float(_scores(margin, states, gained + lost)[lost]))
    return min(1.0, max(_passes(most_C, states, share, margin / share) for share in _shares(margin)))


def pass_probability(margin: float, states: int, alpha: float, change: float, changing: float) -> float:
    """Return how often a version passes whose success rate is `change` higher, with a share `changing` of the states.

    Exact. Raises ValueError for a change that is larger than the share.
    """
    if abs(change) > changing:
        raise ValueError(f"a change of {change} takes more than a share {changing} of changing states")
    return _passes(_limits(margin, states, alpha), states, changing, -change / changing if changing else 0.0)


def states_needed(margin: float, alpha: float, changing: float, power: float = 0.8) -> int:
    """Return how many states an equal version takes to pass with this probability, about: by the normal law."""
    quantile = NormalDist().inv_cdf
    exact = (quantile(1.0 - alpha) + quantile(power)) ** 2 * max(changing, margin) / margin**2
    return 10 * ceil(exact / 10)


@lru_cache(maxsize=64)
def _limits(margin: float, states: int, alpha: float) -> NDArray[np.int64]:
    """[C] most losses with which p is alpha at most, for 0 to `states` changed ones; -1: none."""
    low, high = NormalDist().inv_cdf(1.0 - alpha) / 2.0, sqrt(states)
    for _ in range(20):  # p falls as the score rises
        middle = (low + high) / 2.0
        most_C = _most_losses(margin, states, middle)
        worst = max(_passes(most_C, states, share, margin / share) for share in _shares(margin))
        low, high = (low, middle) if worst <= alpha else (middle, high)
    return _most_losses(margin, states, high)


@lru_cache(maxsize=8)
def _shares(margin: float) -> tuple[float, ...]:
    return tuple(map(float, np.geomspace(margin, 1.0, GRID)))


def _most_losses(margin: float, states: int, score: float) -> NDArray[np.int64]:
    """[C] most losses with this score or a better one; -1: not even none."""
    return np.array([(_scores(margin, states, changed) >= score - CLOSE).sum() - 1 for changed in range(states + 1)])


@lru_cache(maxsize=20_000)
def _scores(margin: float, states: int, changed: int) -> NDArray[np.float64]:
    """[L] the statistic after 0 to `changed` losses: standard deviations above what the margin allows, falling."""
    lost_L = np.arange(changed + 1)
    gained_L = changed - lost_L
    linear_L = -changed - (2 * states - gained_L + lost_L) * margin
    constant_L = lost_L * margin * (1.0 + margin)
    loss_L = (np.sqrt(linear_L**2 - 8.0 * states * constant_L) - linear_L) / (4.0 * states)
    variance_L = states * (2.0 * loss_L - margin * (1.0 + margin))
    scores_L: NDArray[np.float64] = (gained_L - lost_L + states * margin) / np.sqrt(np.maximum(variance_L, 1e-12))
    return scores_L


def _passes(most_C: NDArray[np.int64], states: int, share: float, tilt: float) -> float:
    """P(losses within the limits) when a share of the states changes sides, of those (1 + tilt) / 2 losses."""
    mean, sd = states * share, sqrt(states * share * (1.0 - share))
    first = max(0, int(mean - TAIL_SDS * sd - 1.0))
    changed_C = np.arange(first, min(states, int(mean + TAIL_SDS * sd + 1.0)) + 1)
    allowed_C = most_C[changed_C]
    lost_L = np.arange(max(0, int(allowed_C.max())) + 1)
    losses_CL = _binomial(changed_C[:, None], lost_L[None, :], min(1.0, (1.0 + tilt) / 2.0))
    within_C = np.where(lost_L <= allowed_C[:, None], losses_CL, 0.0).sum(axis=1)
    return float(_binomial(np.array(states), changed_C, share) @ within_C)


def _binomial(count: NDArray[np.int64], number: NDArray[np.int64], chance: float) -> NDArray[np.float64]:
    """P(`number` of `count`), 0 where that is more than all."""
    logs, most = _factorials(max(int(count.max()), int(number.max()))), number <= count
    kept, rest = np.where(most, number, 0), np.where(most, count - number, 0)
    if chance <= 0.0 or chance >= 1.0:
        return np.where((rest if chance >= 1.0 else kept) == 0, 1.0, 0.0) * most
    chances = np.exp(logs[kept + rest] - logs[kept] - logs[rest] + kept * log(chance) + rest * log1p(-chance))
    return np.where(most, chances, 0.0)


@lru_cache(maxsize=512)
def _factorials(count: int) -> NDArray[np.float64]:
    """Logarithms of the factorials of 0 to `count`."""
    return np.array([lgamma(number + 1) for number in range(count + 1)])
