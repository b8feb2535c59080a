"""Limits: complete and finite, or there is no governor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pirl_ros.control.governor import Governor
from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limits import Limits
from pirl_ros.profile.profile import Profile

RATES = ("velocity", "acceleration", "jerk")


def test_limits_come_from_the_profile(profile: Profile) -> None:
    limits = Limits.from_profile(profile)
    assert limits.low[3] == -3.0718
    np.testing.assert_allclose(limits.velocity[0], 2.175 * profile.safety.speed_scale)
    assert limits.period_s == 0.05
    Governor(limits, Chain.from_table(profile.kinematics))


@pytest.mark.parametrize(
    "change",
    [
        {"low": np.array([])},
        {"high": np.full(7, np.inf)},
        {"low": np.full(7, 9.0)},
        *({rate: np.array([0.1])} for rate in RATES),
        *({rate: np.array([1.0] * 6 + [bad])} for rate in RATES for bad in (0.0, -1.0, np.nan, np.inf)),
        {"workspace_low": np.array([0.0, 0.0])},
        {"workspace_low": np.array([0.0, np.nan, 0.0])},
        {"workspace_high": np.array([-20.0, 1.0, 1.0])},
        {"max_jump": 0.0},
        {"period_s": float("inf")},
        {"max_chunk_age_s": float("nan")},
    ],
)
def test_it_refuses_to_exist_without_limits(profile: Profile, change: dict[str, object]) -> None:
    chain = Chain.from_table(profile.kinematics)
    with pytest.raises(ValueError, match="the governor needs"):
        Governor(replace(Limits.from_profile(profile), **change), chain)  # type: ignore[arg-type]


def test_it_refuses_kinematics_of_another_arm(profile: Profile) -> None:
    chain = Chain.from_table(profile.kinematics)
    with pytest.raises(ValueError, match="kinematics of 7 joints, got 6"):
        Governor(Limits.from_profile(profile), Chain(chain.origins[:6], chain.tool))
