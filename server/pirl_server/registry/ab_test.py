"""Which of two versions is better, by pairs of episodes on the same robot; may be looked at after every pair.

x is the difference of the outcomes of a pair: 1, 0 or -1. Against the hypothesis that its mean is d at most one bets:
the wealth is multiplied by 1 + w (x - d) with each pair, which no such mean lets grow on average, whatever the order
depends on. The probability that the wealth ever reaches 1 / alpha is alpha at most (Ville). The stakes w are mixed over
a grid, since the right one is not known beforehand.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal Statistical
Society B 86 (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

STAKES = 12
Verdict = Literal["", "first", "second", "equal"]


@dataclass(frozen=True)
class AbResult:
    """What the pairs say; empty verdict: nothing yet."""

    verdict: Verdict
    pairs: int
    """up to the verdict, which is final"""
    first: int
    """successes of the first version in these pairs"""
    second: int
    """successes of the second version in these pairs"""
    p_first: float
    """bound of the probability of so much evidence that the first is better, if it is not"""
    p_second: float
    """the same for the second"""
    p_equal: float
    """the same for a difference within the margin, if it is larger"""


def judge(pairs: Sequence[tuple[bool, bool]], margin: float, alpha: float) -> AbResult:
    """Go through the pairs, outcomes of first and second version, until they decide.

    `first` or `second`: it is better, two-sided level alpha; `equal`: they differ by less than the margin, level alpha.
    """
    better, worse = _Bet(0.0), _Bet(0.0)
    not_below, not_above = _Bet(-margin), _Bet(-margin)
    wins = np.zeros(2, np.int64)
    for count, (first, second) in enumerate(pairs, 1):
        x = int(first) - int(second)
        wins += (first, second)
        for bet, value in ((better, x), (worse, -x), (not_below, x), (not_above, -x)):
            bet.place(value)
        if verdict := _verdict(better, worse, not_below, not_above, alpha):
            return _result(verdict, count, wins, better, worse, not_below, not_above)
    return _result("", len(pairs), wins, better, worse, not_below, not_above)


def _verdict(better: _Bet, worse: _Bet, not_below: _Bet, not_above: _Bet, alpha: float) -> Verdict:
    if better.best * alpha / 2.0 >= 1.0:
        return "first"
    if worse.best * alpha / 2.0 >= 1.0:
        return "second"
    if min(not_below.best, not_above.best) * alpha >= 1.0:
        return "equal"
    return ""


def _result(
    verdict: Verdict, pairs: int, wins: NDArray[np.int64], better: _Bet, worse: _Bet, below: _Bet, above: _Bet
) -> AbResult:
    p_first, p_second = min(1.0, 2.0 / better.best), min(1.0, 2.0 / worse.best)
    p_equal = min(1.0, 1.0 / min(below.best, above.best))
    return AbResult(verdict, pairs, int(wins[0]), int(wins[1]), p_first, p_second, p_equal)


class _Bet:
    """That the mean is above d."""

    def __init__(self, d: float) -> None:
        self._d = d
        self._stakes = np.linspace(0.02, 0.95, STAKES) / (1.0 + d)
        self._wealth = np.ones(STAKES)
        self.best = 1.0
        """largest wealth so far"""

    def place(self, x: int) -> None:
        self._wealth *= 1.0 + self._stakes * (x - self._d)
        self.best = max(self.best, float(self._wealth.mean()))
