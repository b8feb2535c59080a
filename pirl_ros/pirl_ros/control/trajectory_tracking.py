"""Joint positions one period ahead that follow a goal as closely as the limits allow.

A suggestion only: `governor` checks it. Units as in `stop_trajectory`: rad and control periods. J = joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Range = tuple[Array, Array]

_GRID = np.linspace(0.0, 1.0, 17)[:, None]


@dataclass(frozen=True)
class Bounds:
    """Limits per period: velocity, acceleration, jerk, each [J]."""

    velocity: Array
    acceleration: Array
    jerk: Array

    @cached_property
    def far_below(self) -> Array:
        """[J] speed up to which the velocity limit allows any acceleration for one period."""
        steps = np.ceil(self.acceleration / self.jerk)
        return self.velocity - steps * (self.acceleration - self.jerk * (steps - 1) / 2)


@dataclass(frozen=True)
class Motion:
    """Position, velocity and acceleration of the newest command, each [J]."""

    p: Array
    v: Array
    a: Array

    def moved_to(self, p: Array) -> Motion:
        """Return the motion after one more period that ends at `p`."""
        v = p - self.p
        return Motion(p, v, v - self.v)


def follow(motion: Motion, goal: Array, drift: Array, locked: Mask, bounds: Bounds, least_share: float = 0.1) -> Array:
    """Return the next positions [J]: the goal itself where it can be had, else on the way to it.

    `drift` [J] is how the goal itself moves per period, `locked` [J] where the last command was the last goal. A goal
    that keeps the limits itself is therefore followed without a lag. One that does not is approached so that the
    command could always come to rest where the goal would. On a straight way: each joint uses a share of its limits in
    proportion to its part of the way, but at least `least_share`.
    """
    # A joint that may do anything from one period to the next needs no plan, only its velocity limit.
    free = (bounds.acceleration >= 2 * bounds.velocity) & (bounds.jerk >= 4 * bounds.velocity)
    direct = shorten(goal, motion.p, bounds.velocity)
    if free.all():
        return direct
    exact, hard = goal - motion.p - motion.v, _range(motion, bounds)
    miss = drift - (motion.v + exact)
    nearly = (np.abs(miss) <= bounds.acceleration) & (np.abs(miss - exact) <= bounds.jerk)
    landing = (exact >= hard[0]) & (exact <= hard[1]) & (locked | nearly)
    if landing.all():
        return goal
    shares = bounds if drift.any() else _shares(motion, goal, bounds, least_share)
    soft = _range(motion, shares)
    landing &= locked | ((exact >= soft[0]) & (exact <= soft[1]))
    approach = motion.p + motion.v + _approach(motion, goal, drift, shares, hard, soft)
    chosen: Array = np.where(landing, goal, np.where(free, direct, approach))
    return chosen


def shorten(target: Array, origin: Array, largest: Array) -> Array:
    """Return `target` itself, or the point on the way from `origin` to it where no joint moves more than `largest`."""
    with np.errstate(over="ignore"):
        step = np.clip(target - origin, -1e6, 1e6)
    excess = float(np.max(np.abs(step) / largest))
    return target if excess <= 1.0 else origin + step / excess


def _range(motion: Motion, bounds: Bounds) -> tuple[Array, Array]:
    """Accelerations [J] of the next period that keep jerk, acceleration and velocity.

    Going into the velocity limit, the acceleration must fall at the jerk limit: n a - j n(n-1)/2 is still gained.
    """
    low = np.maximum(motion.a - bounds.jerk, -bounds.acceleration)
    high = np.minimum(motion.a + bounds.jerk, bounds.acceleration)
    if (np.abs(motion.v) <= bounds.far_below).all():
        return low, high
    up, down = (_entry(bounds.velocity - side * motion.v, bounds.jerk) for side in (1.0, -1.0))
    return np.minimum(np.maximum(low, -down), high), np.maximum(np.minimum(high, up), low)


def _entry(room: Array, jerk: Array) -> Array:
    steps = np.maximum(np.ceil((np.sqrt(1 + 8 * np.maximum(room, 0.0) / jerk) - 1) / 2), 1.0)
    entry: Array = np.where(room < 0, room, room / steps + jerk * (steps - 1) / 2)
    return entry


def _approach(motion: Motion, goal: Array, drift: Array, shares: Bounds, hard: Range, soft: Range) -> Array:
    """Acceleration [J] after which the stopping point is nearest to that of the goal."""
    acceleration, jerk = shares.acceleration, np.minimum(shares.jerk, shares.acceleration)
    (low, high), joints = hard, np.arange(len(goal))
    wanted = goal + np.sign(drift) * _distance(np.abs(drift), acceleration, jerk)
    tried = low + _GRID * (high - low)
    ends = _stopping_point(motion, tried, acceleration, jerk)
    upper = np.minimum(np.maximum((ends <= wanted).sum(axis=0), 1), len(_GRID) - 1)
    low, high = tried[upper - 1, joints], tried[upper, joints]
    below, above = ends[upper - 1, joints], ends[upper, joints]
    share = (wanted - below) / np.maximum(above - below, 1e-300)
    nearest: Array = low + np.minimum(np.maximum(share, 0.0), 1.0) * (high - low)
    # Speeding up keeps to the joint's share, braking may use all there is.
    within = np.minimum(np.maximum(nearest, soft[0]), soft[1])
    return np.where(motion.v * nearest < 0, nearest, np.minimum(np.maximum(within, hard[0]), hard[1]))


def _shares(motion: Motion, goal: Array, bounds: Bounds, least: float) -> Bounds:
    """Limits to plan with."""
    way = np.maximum(np.abs(goal - motion.p), 1e-12)
    limits = np.stack([bounds.velocity, bounds.acceleration, bounds.jerk])
    velocity, acceleration, jerk = np.maximum((limits / way).min(axis=1, keepdims=True) * way, least * limits)
    return Bounds(velocity, acceleration, jerk)


def _stopping_point(motion: Motion, a: Array, acceleration: Array, jerk: Array) -> Array:
    """Where the joints come to rest when they brake after a period of acceleration `a` [.., J]; it rises with `a`.

    Sums over whole periods are samples of the continuous triple integrator at position p - 5a/6 and velocity v + a/2.
    """
    v = motion.v + 1.5 * a
    p = motion.p + motion.v + a / 6
    sign = np.where(v + a * np.abs(a) / (2 * jerk) < 0, -1.0, 1.0)
    coasting = _distance(np.maximum(sign * v + a**2 / (2 * jerk), 0.0), acceleration, jerk)
    end: Array = p + sign * (v * a / jerk + coasting) + a**3 / (3 * jerk**2)
    return end


def _distance(speed: Array, acceleration: Array, jerk: Array) -> Array:
    """Way from `speed` without acceleration to rest."""
    long = speed * (speed / acceleration + acceleration / jerk) / 2
    distance: Array = np.where(speed * jerk >= acceleration**2, long, speed * np.sqrt(speed / jerk))
    return distance
