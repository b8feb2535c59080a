"""How good a classifier's probabilities are: AUC, calibration, temperature, and the threshold of its confidence.

N episodes, `logits` and `outcomes` [N]; an outcome is True for a success.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Outcomes = NDArray[np.bool_]
BINS = 10
RESAMPLES = 1000
MAX_SCALE = 100.0
"""highest 1 / temperature, and highest temperature"""
LEAST_AT_THRESHOLD = 5
"""episodes at or above a threshold: fewer show no accuracy"""


@dataclass(frozen=True)
class Bin:
    """One row of a reliability table: predicted against observed."""

    low: float
    """smallest probability of the bin"""
    high: float
    """where the next bin begins"""
    episodes: int
    predicted: float
    """mean probability of success"""
    observed: float
    """share of successes"""


def probability(logits: Floats) -> Floats:
    """Return the probability of success [N] of logits [N], without an overflow for large ones."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def auc(scores: Floats, outcomes: Outcomes) -> float:
    """Return the probability that a success has a higher score [N] than a failure by `outcomes` [N]; a tie counts half.

    Raises ValueError without a success or without a failure.
    """
    good, bad = scores[outcomes], np.sort(scores[~outcomes])
    if not len(good) or not len(bad):
        raise ValueError(f"{len(good)} successes and {len(bad)} failures: an AUC needs both")
    below, not_above = np.searchsorted(bad, good, "left"), np.searchsorted(bad, good, "right")
    return float((below + not_above).mean() / (2 * len(bad)))


def auc_interval(scores: Floats, outcomes: Outcomes, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the AUC of scores [N], resampling by `outcomes` [N] apart. Raises as `auc`."""
    draw = np.random.default_rng(seed)
    good, bad = scores[outcomes], scores[~outcomes]
    labels = np.concatenate([np.ones(len(good), np.bool_), np.zeros(len(bad), np.bool_)])
    found = [
        auc(np.concatenate([draw.choice(good, len(good)), draw.choice(bad, len(bad))]), labels)
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def reliability(probabilities: Floats, outcomes: Outcomes, bins: int = BINS) -> list[Bin]:
    """Return the bins of equal width that hold an episode, lowest first. Probabilities and outcomes are both [N]."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    rows = []
    for each in np.unique(place):
        inside = place == each
        predicted, observed = float(probabilities[inside].mean()), float(outcomes[inside].mean())
        rows.append(Bin(float(edges[each]), float(edges[each + 1]), int(inside.sum()), predicted, observed))
    return rows


def calibration_error(probabilities: Floats, outcomes: Outcomes, bins: int = BINS) -> float:
    """Return the expected calibration error of both [N]: distance of observed from predicted, weighted by episodes."""
    rows = reliability(probabilities, outcomes, bins)
    return sum(row.episodes * abs(row.predicted - row.observed) for row in rows) / len(outcomes)


def temperature(logits: Floats, outcomes: Outcomes) -> float:
    """Return what logits [N] are divided by for the highest likelihood of `outcomes` [N]; within `MAX_SCALE` of 1.

    Outcomes count as Platt's targets, (n + 1) / (n + 2) for n of a kind: few episodes that are parted without an error
    say nothing of certainty. The likelihood is concave in 1 / temperature: its slope changes sign once.
    """
    good, bad = int(outcomes.sum()), int((~outcomes).sum())
    target = np.where(outcomes, (good + 1.0) / (good + 2.0), 1.0 / (bad + 2.0))
    low, high = 1.0 / MAX_SCALE, MAX_SCALE
    for _ in range(60):
        scale = (low * high) ** 0.5
        slope = float(((target - probability(scale * logits)) * logits).sum())
        low, high = (scale, high) if slope > 0.0 else (low, scale)
    return float(1.0 / (low * high) ** 0.5)


def confidence_threshold(probabilities: Floats, outcomes: Outcomes, accuracy: float) -> float | None:
    """Return the lowest confidence max(p, 1 - p) from which so large a share is judged right; None: there is none.

    Both are [N]. Each threshold has at least `LEAST_AT_THRESHOLD` episodes behind it.
    """
    confidence, right = np.maximum(probabilities, 1.0 - probabilities), (probabilities >= 0.5) == outcomes
    order = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_tie = np.append(confidence[order][:-1] > confidence[order][1:], True)
    enough = last_of_tie & (shares >= accuracy) & (np.arange(1, len(order) + 1) >= LEAST_AT_THRESHOLD)
    return float(confidence[order][np.flatnonzero(enough)[-1]]) if enough.any() else None
