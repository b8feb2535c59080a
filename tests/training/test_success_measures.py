"""AUC, calibration, temperature and threshold against SciPy, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from pirl_server.training.success import measures

cases = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40)


def drawn(count: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `scale` times too sure of outcomes drawn by them."""
    draw = np.random.default_rng(seed)
    true = draw.normal(0.0, 2.0, count)
    return scale * true, draw.random(count) < measures.probability(true)


@given(cases)
def test_auc_is_that_of_mann_and_whitney(found: list[tuple[int, bool]]) -> None:
    scores, outcomes = np.array([each[0] for each in found], float), np.array([each[1] for each in found])
    if outcomes.all() or not outcomes.any():
        with pytest.raises(ValueError, match="needs both"):
            measures.auc(scores, outcomes)
        return
    statistic = stats.mannwhitneyu(scores[outcomes], scores[~outcomes]).statistic
    assert measures.auc(scores, outcomes) == pytest.approx(statistic / (outcomes.sum() * (~outcomes).sum()))
    assert measures.auc(-scores, outcomes) == pytest.approx(1.0 - measures.auc(scores, outcomes))


def test_an_interval_of_the_auc_holds_the_true_one_as_often_as_it_says() -> None:
    true, held = stats.norm.cdf(1.0 / 2**0.5), 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        scores = np.concatenate([draw.normal(1.0, 1.0, 60), draw.normal(0.0, 1.0, 60)])
        low, high = measures.auc_interval(scores, np.arange(120) < 60)
        held += low <= true <= high
    assert held >= stats.binom.ppf(0.001, 60, 0.95)
    assert held < 60, "an interval that is never wrong is too wide"


def test_the_temperature_is_the_most_likely_one() -> None:
    for scale in (0.5, 1.0, 4.0):
        logits, outcomes = drawn(4000, scale)
        found = measures.temperature(logits, outcomes)

        def loss(log_t: float, logits: np.ndarray = logits, outcomes: np.ndarray = outcomes) -> float:
            good, bad, scaled = outcomes.sum(), (~outcomes).sum(), logits / np.exp(log_t)
            target = np.where(outcomes, (good + 1) / (good + 2), 1 / (bad + 2))
            return float((target * np.logaddexp(0, -scaled) + (1 - target) * np.logaddexp(0, scaled)).sum())

        best = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
        assert found == pytest.approx(np.exp(best), rel=1e-3)
        assert found == pytest.approx(scale, rel=0.15)
    separable = np.array([-1.0, -1.0, 1.0, 1.0])
    sure = measures.probability(separable / measures.temperature(separable, separable > 0))
    np.testing.assert_allclose(sure, [0.25, 0.25, 0.75, 0.75], rtol=1e-6)  # two of a kind, all right: (2 + 1) / (2 + 2)
    assert measures.temperature(separable, separable < 0) == pytest.approx(measures.MAX_SCALE)


def test_a_temperature_mends_calibration_and_leaves_the_auc() -> None:
    logits, outcomes = drawn(4000, 4.0)
    before = measures.calibration_error(measures.probability(logits), outcomes)
    scaled = logits / measures.temperature(logits, outcomes)
    after = measures.calibration_error(measures.probability(scaled), outcomes)
    assert before > 0.1
    assert after < 0.03
    assert measures.auc(scaled, outcomes) == measures.auc(logits, outcomes)


def test_a_reliability_table_counts_each_episode_once() -> None:
    logits, outcomes = drawn(500, 1.0)
    probabilities = measures.probability(logits)
    probabilities[:2] = 0.0, 1.0
    rows = measures.reliability(probabilities, outcomes)
    assert sum(row.episodes for row in rows) == 500
    assert sum(row.episodes * row.observed for row in rows) == pytest.approx(outcomes.sum())
    assert sum(row.episodes * row.predicted for row in rows) == pytest.approx(probabilities.sum())
    assert all(row.low <= row.predicted <= row.high for row in rows)
    one_sided = measures.calibration_error(np.full(10, 0.75), np.arange(10) < 4)
    assert one_sided == pytest.approx(0.35)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40), st.sampled_from([0.5, 0.8, 1]))
def test_the_threshold_is_the_lowest_that_is_accurate_enough(found: list[tuple[int, bool]], accuracy: float) -> None:
    probabilities, outcomes = np.array([each[0] / 20 for each in found]), np.array([each[1] for each in found])
    confidence, right = np.maximum(probabilities, 1 - probabilities), (probabilities >= 0.5) == outcomes
    passing = [
        level
        for level in np.unique(confidence)
        if right[confidence >= level].mean() >= accuracy and (confidence >= level).sum() >= measures.LEAST_AT_THRESHOLD
    ]
    assert measures.confidence_threshold(probabilities, outcomes, accuracy) == (min(passing) if passing else None)
