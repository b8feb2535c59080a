"""Distances of chunks and the test for a difference, against closed forms and scipy, and its rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from pirl_contract import Contract, Field
from pirl_server.inspection.chunk_distance import compare, discoveries, distance, entry_scales


def test_an_entry_counts_in_parts_of_its_range() -> None:
    action = (Field("a", "rad", -1.0, 3.0), Field("b", "m"), Field("c", "1"))
    chunks = np.zeros((2, 5, 3))
    chunks[:, :, 1] = [[0.0], [2.0]]
    scales = entry_scales(Contract("arm", (), action, action, 20.0), chunks)
    np.testing.assert_array_equal(scales, [4.0, 1.0, 1.0])
    first, second = np.zeros((5, 3)), np.tile([4.0, 0.0, 0.0], (5, 1))
    assert distance(first, second, scales) == pytest.approx(np.sqrt(1 / 3))


def test_of_two_points_the_distances_are_those_points() -> None:
    """One version always draws 0, the other always 1: no noise, distance 1, and the smallest p there is."""
    apart = compare(np.zeros((8, 3, 2)), np.ones((8, 3, 2)), np.ones(2))
    assert (apart.between, apart.within) == (1.0, 0.0)
    assert apart.p <= 3 / 1000
    alike = compare(np.zeros((8, 3, 2)), np.zeros((8, 3, 2)), np.ones(2))
    assert (alike.between, alike.p) == (0.0, 1.0)


def test_versions_that_are_the_same_seldom_differ_and_others_mostly_do() -> None:
    random = np.random.default_rng(0)
    trials = 200
    same = [compare(*random.normal(size=(2, 8, 4, 3)), np.ones(3), seed).p for seed in range(trials)]
    # 95 % of 200 binomial draws of 0.05 lie below 17
    assert np.mean(np.array(same) <= 0.05) <= 17 / trials
    assert 0.35 < np.mean(same) < 0.65
    moved = [compare(first, second + 1.0, np.ones(3), seed).p
             for seed, (first, second) in enumerate(random.normal(size=(50, 2, 8, 4, 3)))]  # fmt: skip
    assert np.mean(np.array(moved) <= 0.05) > 0.9


def test_a_wider_spread_with_the_same_mean_is_a_difference_too() -> None:
    random = np.random.default_rng(1)
    assert compare(random.normal(size=(16, 4, 3)), 4 * random.normal(size=(16, 4, 3)), np.ones(3)).p < 0.05


def test_discoveries_are_those_of_scipy() -> None:
    random = np.random.default_rng(2)
    for size in (1, 2, 7, 40):
        for power in (1, 3, 8):
            p = random.random(size) ** power
            assert discoveries(p.tolist()) == (false_discovery_control(p) <= 0.05).tolist()
    assert discoveries([]) == []
