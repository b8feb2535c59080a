"""The governor: the last thing between a policy and the arm's controller. It is software and not safety-rated.

For any input, NaN and infinity included, what leaves it is within the position limits and moves no joint further per
control period than its velocity limit allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Alteration
from pirl_ros.profile import Profile

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """What the governor enforces. J = joints; rad, rad per control period, seconds."""

    low: Array
    high: Array
    max_step: Array
    """[J] largest change of the command in one control period"""
    max_jump: float
    """largest distance of a target from the measured joint"""
    max_chunk_age_s: float
    max_observation_age_s: float

    @classmethod
    def from_profile(cls, profile: Profile) -> Limits:
        """Take the arm's limits from a robot profile."""
        joints, safety = profile.arm.joints, profile.safety
        return cls(
            low=np.array([joint.low for joint in joints]),
            high=np.array([joint.high for joint in joints]),
            max_step=np.array([joint.velocity for joint in joints]) * safety.speed_scale / profile.rate_hz,
            max_jump=safety.max_jump,
            max_chunk_age_s=safety.max_chunk_age,
            max_observation_age_s=safety.max_observation_age,
        )


class Governor:
    """Checks each joint target. Holding means repeating the last command, so the arm comes to rest there."""

    def __init__(self, limits: Limits) -> None:
        """Refuse to exist without complete limits: ValueError."""
        low, high, step = limits.low, limits.high, limits.max_step
        scalars = np.array([limits.max_jump, limits.max_chunk_age_s, limits.max_observation_age_s])
        if not low.size or low.shape != high.shape or low.shape != step.shape:
            raise ValueError("the governor needs a lower, an upper and a step limit for every joint")
        if not (np.isfinite([low, high, step]).all() and (low < high).all() and (step > 0).all()):
            raise ValueError("the governor needs finite limits with low < high and a step above 0 for every joint")
        if not (np.isfinite(scalars).all() and (scalars > 0).all()):
            raise ValueError("the governor needs a jump limit and age limits above 0")
        self._limits = limits
        self._last: Array | None = None

    def release(self) -> None:
        """Forget the last command: the next one starts from the measured joints (new episode, arm moved by others)."""
        self._last = None

    def hold(self) -> Array | None:
        """Return the last command again; None when there is none yet, and then nothing may be commanded."""
        return None if self._last is None else self._last.copy()

    def command(
        self, target: Array, measured: Array, chunk_age_s: float, observation_age_s: float
    ) -> tuple[Array | None, Alteration]:
        """Return the joint command [J] for `target` and what was altered; None: command nothing.

        Ages that are NaN or negative count as too old, as everything unknown does.
        """
        limits = self._limits
        if not np.isfinite(measured).all() or not np.isfinite(target).all():
            return self.hold(), Alteration.NOT_FINITE
        fresh = 0 <= chunk_age_s <= limits.max_chunk_age_s and 0 <= observation_age_s <= limits.max_observation_age_s
        if not fresh:
            return self.hold(), Alteration.STALE
        last = np.clip(measured, limits.low, limits.high) if self._last is None else self._last
        near, altered = _shorten(target, measured, np.full_like(measured, limits.max_jump)), Alteration.NONE
        if near is not target:
            altered |= Alteration.JUMP
        inside = np.clip(near, limits.low, limits.high)
        slow = _shorten(inside, last, limits.max_step)
        if slow is not inside or not np.array_equal(inside, near):
            altered |= Alteration.LIMIT
        # Rounding in the last digit must not leave the box.
        self._last = np.clip(slow, limits.low, limits.high)
        return self._last.copy(), altered


def _shorten(target: Array, origin: Array, largest: Array) -> Array:
    """Return `target` itself, or the point on the way from `origin` to it where no joint moves more than `largest`."""
    with np.errstate(over="ignore"):
        step = np.clip(target - origin, -1e6, 1e6)
    excess = float(np.max(np.abs(step) / largest))
    return target if excess <= 1.0 else origin + step / excess
