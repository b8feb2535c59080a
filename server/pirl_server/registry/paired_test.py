"""Is a version not worse than another on the same initial states? An exact test, conditional on the changed states.

Of n states, c changed sides: `gained` became successes and `lost` became failures. Under the hypothesis that the new
version is worse by `margin` in success rate, a changed state is a loss with probability (1 + margin n / c) / 2, so that
`lost` is binomial. A margin of 0 is McNemar's one-sided test for a better version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from pirl_server.registry.mcnemar import mcnemar


@dataclass(frozen=True)
class PairedTest:
    """How many states changed sides, and how likely so few losses are for a version that is worse, or no better."""

    episodes: int
    gained: int
    lost: int
    p_not_worse: float
    """of at most so many losses, if the new version were worse by the margin: small means that it is not"""
    p_better: float
    """of at most so many losses, if both versions were equally good"""

    def __str__(self) -> str:
        return (
            f"+{self.gained} -{self.lost} of {self.episodes} states, p {self.p_not_worse:.3g} of being worse by the"
            f" margin, p {self.p_better:.3g} of not being better"
        )


def paired_test(before: Sequence[bool], after: Sequence[bool], margin: float) -> PairedTest:
    """Compare the outcomes of each state; `margin` is a difference of success rates.

    Raises ValueError for lists of different length.
    """
    found, count = mcnemar(before, after), len(before)
    worse, better = (_p(found.gained, found.lost, margin * count), _p(found.gained, found.lost, 0.0))
    return PairedTest(count, found.gained, found.lost, worse, better)


def _p(gained: int, lost: int, excess: float) -> float:
    """P(at most `lost` losses) when losses exceed gains by `excess` states on average."""
    changed = gained + lost
    if not changed:
        return 0.0 if excess else 1.0  # equal outcomes everywhere: not worse, and not better
    loss = min(1.0, (1.0 + excess / changed) / 2.0)
    terms = (comb(changed, count) * loss**count * (1.0 - loss) ** (changed - count) for count in range(lost + 1))
    return min(1.0, sum(terms))
