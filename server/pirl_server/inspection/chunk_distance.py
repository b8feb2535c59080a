"""How far the chunks of two versions are apart, against how far those of one version are apart by their noise.

A distance is the root mean square over the actions that are played and over the entries of an action, each entry in
parts of its scale. Whether two versions differ in a decision is a permutation test of the energy distance (Szekely and
Rizzo, 2004) between chunks of other seeds: under the hypothesis that both draw from one distribution, which chunk is
whose does not matter. Over the decisions of an episode the false discovery rate is bounded (Benjamini and Hochberg,
1995).

Shape letters: M seeds, R actions that count, D action, C decisions, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract

PERMUTATIONS = 999
FALSE_DISCOVERY_RATE = 0.05

Double = NDArray[np.float64]


@dataclass(frozen=True)
class Apart:
    """Two versions in one decision."""

    between: float
    """mean distance of a chunk of one to a chunk of the other"""
    within: float
    """mean distance of two chunks of one version by other seeds; the greater of both versions'"""
    p: float
    """of the permutation test: the probability of such an energy distance if the versions were the same"""


def entry_scales(contract: Contract, chunks: Double) -> Double:
    """Return the scale of each entry of an action, [D]: its range; of an unlimited one, its deviation in chunks.

    `chunks` [C, H, D]. An unlimited entry that never changes has scale 1.
    """
    deviation = chunks.reshape(-1, chunks.shape[-1]).std(axis=0)
    return np.array(
        [
            entry.high - entry.low if entry.low is not None and entry.high is not None and entry.high > entry.low
            else spread if spread > 0 else 1.0
            for entry, spread in zip(contract.action, deviation)
        ]
    )  # fmt: skip


def distance(first: Double, second: Double, scales_D: Double) -> float:
    """Return the distance of two chunks, both [R, D]."""
    return float(np.sqrt(np.mean(((first - second) / scales_D) ** 2)))


def compare(first: Double, second: Double, scales_D: Double, seed: int = 0) -> Apart:
    """Compare chunks of two versions, both [M, R, D], drawn with 2M different seeds. M is 2 or more."""
    count = len(first)
    both = np.concatenate([first, second]) / scales_D
    apart = np.sqrt(np.mean((both[:, None] - both[None]) ** 2, axis=(2, 3)))
    labels = np.arange(len(both)) < count
    random = np.random.default_rng(seed)
    shuffled = random.permuted(np.tile(labels, (PERMUTATIONS, 1)), axis=1)
    observed, others = _energies(apart, labels[None])[0], _energies(apart, shuffled)
    # a permutation of the same sums, added in another order, is as extreme as what was observed
    extreme = int((others >= observed * (1 - 1e-9)).sum())
    own = [apart[np.ix_(part, part)].sum() / (part.sum() * (part.sum() - 1)) for part in (labels, ~labels)]
    return Apart(float(apart[np.ix_(labels, ~labels)].mean()), float(max(own)), (1 + extreme) / (1 + PERMUTATIONS))


def _energies(apart: Double, labels: NDArray[np.bool_]) -> Double:
    """Energy distance for each row of labels: twice the mean distance between groups, less those within each."""
    first, second = labels.astype(np.float64), (~labels).astype(np.float64)

    def mean(one: Double, other: Double) -> Double:
        means: Double = ((one @ apart) * other).sum(axis=1) / (one.sum(axis=1) * other.sum(axis=1))
        return means

    return 2 * mean(first, second) - mean(first, first) - mean(second, second)


def discoveries(p: Sequence[float], rate: float = FALSE_DISCOVERY_RATE) -> list[bool]:
    """Return for each p-value whether it counts, when this share of those that count may be false."""
    order = np.argsort(p, kind="stable")
    passing = [rank for rank, at in enumerate(order, start=1) if p[at] <= rate * rank / len(p)]
    counting = set(order[: max(passing, default=0)].tolist())
    return [at in counting for at in range(len(p))]
