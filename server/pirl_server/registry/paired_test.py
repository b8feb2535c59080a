"""Is a version not worse than another on the same initial states? Exact tests on the states that changed sides.

Of n states, `gained` became successes and `lost` became failures. Whether the new version is worse by a margin is the
unconditional test of `registry.margin_test`; whether it is better is McNemar's one-sided test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from pirl_server.registry.margin_test import p_worse_by
from pirl_server.registry.mcnemar import mcnemar


@dataclass(frozen=True)
class PairedTest:
    """How many states changed sides, and how likely so few losses are for a version that is worse, or no better."""

    episodes: int
    gained: int
    lost: int
    p_not_worse: float
    """of a result at least as good, if the new version were worse by the margin: small means that it is not"""
    p_better: float
    """of at most so many losses, if both versions were equally good"""

    @property
    def changing(self) -> float:
        """Share of the states that changed sides."""
        return (self.gained + self.lost) / self.episodes

    def __str__(self) -> str:
        return (
            f"+{self.gained} -{self.lost} of {self.episodes} states, p {self.p_not_worse:.3g} of being worse by the"
            f" margin, p {self.p_better:.3g} of not being better"
        )


def paired_test(before: Sequence[bool], after: Sequence[bool], margin: float) -> PairedTest:
    """Compare the outcomes of each state; `margin` is a difference of success rates, 0: must be better.

    Raises ValueError for lists of different length and for a margin of 1 or more.
    """
    found, count = mcnemar(before, after), len(before)
    better = _p_better(found.gained, found.lost)
    worse = p_worse_by(margin, count, found.gained, found.lost) if margin and count else better
    return PairedTest(count, found.gained, found.lost, worse, better)


def _p_better(gained: int, lost: int) -> float:
    """P(at most `lost` losses) when gains and losses are equally likely."""
    changed = gained + lost
    return float(sum(comb(changed, count) for count in range(lost + 1)) / 2**changed)
