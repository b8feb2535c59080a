"""Limits that the governor enforces, from a robot profile. Software, not safety-rated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_ros.profile.profile import Profile

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """All of them are needed. J = joints, of one arm after the other, A = arms; rad, metres, seconds."""

    low: Array
    high: Array
    velocity: Array
    """[J] rad/s"""
    acceleration: Array
    """[J] rad/s^2"""
    jerk: Array
    """[J] rad/s^3"""
    workspace_low: Array
    """[3] m, base frame of the kinematics; of several arms [A, 3], each in its own"""
    workspace_high: Array
    period_s: float
    """of the control loop: limits are kept from one command to the next"""
    max_jump: float
    """largest distance of a target from the measured joint"""
    max_chunk_age_s: float
    max_observation_age_s: float
    floor: float = -math.inf
    """m, height in the base frame that no joint origin may get below; -inf: not checked"""

    def __post_init__(self) -> None:
        low, high, rates = self.low, self.high, (self.velocity, self.acceleration, self.jerk)
        scalars = np.array([self.period_s, self.max_jump, self.max_chunk_age_s, self.max_observation_age_s])
        if not low.size or any(low.shape != each.shape for each in (high, *rates)):
            raise ValueError(
                "the governor needs position, velocity, acceleration and jerk limits for every joint:"
                f" got {[each.size for each in (low, high, *rates)]}"
            )
        if not (np.isfinite([low, high, *rates]).all() and (low < high).all() and (np.array(rates) > 0).all()):
            raise ValueError("the governor needs finite limits with low < high and rates above 0 for every joint")
        if not (np.isfinite(scalars).all() and (scalars > 0).all()):
            raise ValueError("the governor needs a period, a jump limit and age limits above 0")
        if math.isnan(self.floor):
            raise ValueError("the governor needs the floor's height in metres, or -inf, got nan")

    @classmethod
    def from_profile(cls, profile: Profile) -> Limits:
        """Take the arm's limits from a robot profile."""
        joints, safety = profile.arm_joints, profile.safety
        boxes = [arm.workspace for arm in profile.arms]
        return cls(
            low=np.array([joint.low for joint in joints]),
            high=np.array([joint.high for joint in joints]),
            velocity=np.array([joint.velocity for joint in joints]) * safety.speed_scale,
            acceleration=np.array([joint.acceleration for joint in joints]),
            jerk=np.array([joint.jerk for joint in joints]),
            workspace_low=np.array([box.low for box in boxes] or safety.workspace.low, float),
            workspace_high=np.array([box.high for box in boxes] or safety.workspace.high, float),
            period_s=1.0 / profile.rate_hz,
            max_jump=safety.max_jump,
            max_chunk_age_s=safety.max_chunk_age,
            max_observation_age_s=safety.max_observation_age,
            floor=safety.floor,
        )
