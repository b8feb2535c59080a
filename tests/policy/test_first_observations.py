"""Statistics against the robot that is really there: silence while they fit, a name and numbers when they do not."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

import numpy as np
import pytest
from small_pretrained import small_observation, small_policy

from pirl_server.policy.processing_spec import Normalisation
from pirl_server.policy.statistics_check import FirstObservations

ZSCORE = Normalisation("zscore", "openpi", (1.0, 0.0), (0.1, 2.0))
QUANTILE = Normalisation("quantile", "openpi", (-1.0, 0.0), (1.0, 0.1))
NAMES = ("shoulder", "grip")


def lines(statistics: Normalisation, *states: Any, count: int = 50) -> list[str]:
    first = FirstObservations(statistics, NAMES, count)
    return [line for state in states for line in first.add(np.array(state, np.float32))]


@pytest.mark.parametrize("statistics", [ZSCORE, QUANTILE])
def test_states_like_the_data_give_one_line_after_the_last(statistics: Normalisation) -> None:
    assert lines(statistics, *[(1.0, 0.05)] * 49) == []
    assert lines(statistics, *[(1.0, 0.05)] * 200) == [
        "statistics match: 50 observations are within the range of the policy's data"
    ]


@pytest.mark.parametrize(
    ("statistics", "inside", "outside", "words"),
    [
        (ZSCORE, (1.49, 9.9), (1.51, 0.0), "'shoulder' is 1.51, .*mean 1, std 0.1"),
        (ZSCORE, (0.51, -9.9), (1.0, -10.1), "'grip' is -10.1, .*mean 0, std 2"),
        (QUANTILE, (4.9, 0.29), (5.1, 0.0), "'shoulder' is 5.1, .*q01 -1, q99 1"),
        (QUANTILE, (-4.9, -0.19), (0.0, -0.21), "'grip' is -0.21, .*q01 0, q99 0.1"),
        (QUANTILE, (0.0, 0.0), (math.nan, 0.0), "'shoulder' is nan"),
    ],
)
def test_far_is_five_standard_deviations_or_two_ranges(
    statistics: Normalisation, inside: Any, outside: Any, words: str
) -> None:
    assert lines(statistics, inside) == []
    (line,) = lines(statistics, inside, outside)
    assert "far from the policy's data" in line
    assert re.search(words, line)


def test_each_dimension_is_complained_about_once_and_the_verdict_names_them() -> None:
    found = lines(ZSCORE, (9.0, 0.0), (9.0, 0.0), (9.0, 99.0), (1.0, 0.0), (9.0, 99.0), count=4)
    assert [line.split("'")[1] for line in found[:2]] == ["shoulder", "grip"]
    assert found[2:] == [
        "statistics do not match: some of 4 observations are far from the policy's data in shoulder, grip"
    ]


def test_without_statistics_there_is_nothing_to_say() -> None:
    assert lines(Normalisation("none", "openpi", (), ()), *[(1e9, 1e9)] * 60) == []


def test_a_served_policy_says_it_in_the_log_and_a_warm_up_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    policy, here = small_policy(), small_observation()
    with caplog.at_level(logging.INFO, "pirl_server"):
        policy.sample(small_observation(state=np.full(4, 90.0, np.float32), capture_time_ns=0), explore=False, seed=0)
        policy.sample(here, explore=False, seed=0)
        assert not caplog.records
        policy.sample(small_observation(state=np.degrees(here.state)), explore=False, seed=0)
    assert caplog.records
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "state 'j1' is" in caplog.text
