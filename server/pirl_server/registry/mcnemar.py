"""Exact McNemar test of two versions on the same initial states.

Quinn McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12 (1947).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class Paired:
    """How many states changed sides from one version to the other, and how likely chance alone does that."""

    gained: int
    """failures that became successes"""
    lost: int
    """successes that became failures"""
    p: float
    """two-sided, of a split at least as uneven when both versions are equally good"""


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Compare the outcomes of each state. Raises ValueError for lists of different length."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} and {len(after)} outcomes can't be paired: evaluate both on the same list")
    gained = sum(new and not old for old, new in zip(before, after))
    lost = sum(old and not new for old, new in zip(before, after))
    changed, fewer = gained + lost, min(gained, lost)
    tail = sum(comb(changed, count) for count in range(fewer + 1)) / 2**changed
    return Paired(gained, lost, min(1.0, 2.0 * tail))
