"""The governor: limits every command, last before the arm's controller. Software, not safety-rated.

A step is taken only when a full stop after it, computed to its end, keeps every limit: position, velocity,
acceleration, jerk, the tool centre inside the workspace and the joints above the floor. Otherwise the stop computed
before is continued. So one is always available, whatever input comes next, and the proof is the check in `_to_rest` and
nothing else: `follow` only suggests a step, `stop_from` gives the stop after it.

Method: a reference governor (Garone, Di Cairano and Kolmanovsky 2017, "Reference and command governors for systems
with constraints") whose admissible commands are those with one stop left, the idea behind inevitable collision states
(Fraichard and Asama 2004).

Everything is counted in control periods, so that limits hold on what is really sent: with position p_k (rad),
v_k = p_k - p_{k-1} (rad per period), a_k = v_k - v_{k-1}, j_k = a_k - a_{k-1}. J = joints, N = periods until rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Alteration
from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limits import Limits
from pirl_ros.control.workspaces import walls

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Range = tuple[Array, Array]

_PLANNED = 1.0 - 1e-6
"""share of each limit that is planned with, so that rounding stays below the limit"""
_RETRIES = 3
"""how often a step that has no stop is halved"""
_SETTLED_S = 0.5
"""after which a drive that lags has caught up with a command at rest"""
_SLACK = 1.0 + 1e-9
"""rounding of a quotient that is compared with the limit it was made from"""
_TRIES = 3
"""lengths of the first part that are tried"""
_GRID = np.linspace(0.0, 1.0, 17)[:, None]
"""shares of an acceleration range at which the stopping point is computed"""


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
        """Return the motion after one more period that ends at `p`. `p` [J] rad."""
        v = p - self.p
        return Motion(p, v, v - self.v)


class Governor:
    """One command per control period. `command` follows a target, `brake` comes to rest and stays there."""

    def __init__(self, limits: Limits, chain: Chain | Sequence[Chain]) -> None:
        """Reject to exist without complete limits: ValueError. `chain`: of several arms, one after the other.

        Several arms have one governor: they share their limits on the way, and what stops one stops all.
        """
        chains = [chain] if isinstance(chain, Chain) else chain
        joints = sum(len(each.origins) for each in chains)
        if joints != len(limits.low):
            raise ValueError(f"the governor needs kinematics of {len(limits.low)} joints, got {joints}")
        self._limits = limits
        self._workspace = walls(limits.workspace_low, limits.workspace_high, chain, limits.floor)
        dt = limits.period_s
        rates = (limits.velocity * dt, limits.acceleration * dt**2, limits.jerk * dt**3)
        self._bounds, self._planned = Bounds(*rates), Bounds(*(_PLANNED * rate for rate in rates))
        self._cruise = self._planned
        still = np.zeros_like(limits.low)
        self._goal, self._drift, self._locked = still, still, still > 0
        self._stop = still[None]
        self.release()

    @property
    def position(self) -> Array | None:
        """[J] the newest command; None: nothing was commanded since `release`."""
        return None if self._motion is None else self._motion.p.copy()

    @property
    def previous(self) -> Array | None:
        """[J] the command before the newest one; the measured joints when the newest is the first."""
        return None if self._motion is None else self._motion.p - self._motion.v

    @property
    def at_rest(self) -> bool:
        """Whether the newest command needs no braking: to repeat it is to stand still."""
        return self._motion is None or bool((self._stop == self._motion.p).all())

    def release(self) -> None:
        """Forget the last command: the next one starts from the measured joints at rest."""
        self._motion: Motion | None = None
        self._rested = 0

    def set_speed_scale(self, share: float) -> None:
        """Use only this part of the velocity limits from now on; ValueError unless in (0, 1]."""
        if not 0 < share <= 1:
            raise ValueError(f"speed scale must be in (0, 1], got {share:g}")
        self._cruise = replace(self._planned, velocity=share * self._planned.velocity)

    def copy(self) -> Governor:
        """Return an independent copy, for lookahead."""
        return copy(self)

    def settle(self, measured: Array) -> None:
        """Continue from the measured joints [J] when the arm stands elsewhere long after it was commanded to rest.

        Something holds it, or a person has moved it: it must not be pulled back. Only here may a command differ from
        the one before by more than the limits, and only because the arm is there already.
        """
        if self._motion is None or self._rested * self._limits.period_s < _SETTLED_S or not np.isfinite(measured).all():
            return
        if (np.abs(measured - self._motion.p) > self._bounds.velocity).any():
            self.release()
            self._start(measured)

    def brake(self) -> Array | None:
        """Return the next command [J] on the way to rest, the same one again at rest; None: there is none yet."""
        if self._motion is None:
            return None
        self._rested = self._rested + 1 if self.at_rest else 0
        self._goal, self._drift, self._locked = self._stop[-1], np.zeros_like(self._drift), np.zeros_like(self._locked)
        return self._go_on(self._stop)

    def command(
        self, target: Array, measured: Array, chunk_age_s: float, observation_age_s: float
    ) -> tuple[Array | None, Alteration]:
        """Return the joint command [J] rad for `target` [J] rad and what was altered; None: command nothing.

        Ages that are NaN or negative count as too old, as everything unknown does. `measured` [J] rad.
        """
        limits = self._limits
        if not np.isfinite(measured).all() or not np.isfinite(target).all():
            return self.brake(), Alteration.NOT_FINITE
        fresh = 0 <= chunk_age_s <= limits.max_chunk_age_s and 0 <= observation_age_s <= limits.max_observation_age_s
        if not fresh:
            return self.brake(), Alteration.STALE
        if self._motion is None and (refused := self._start(measured)):
            return None, refused
        self._rested = 0
        goal, altered = self._admissible(target, measured)
        path = self._checked(self._suggest(goal))
        if path is None:
            altered |= Alteration.WORKSPACE
            path = self._checked(self._slide(goal))
        taken = self._go_on(self._stop if path is None else path)
        self._locked = taken == goal
        return taken, altered if self._locked.all() else altered | Alteration.LIMIT

    def _start(self, measured: Array) -> Alteration:
        """Begin at rest where the arm is; the reason when it stands where no command may be."""
        inside = np.clip(measured, self._limits.low, self._limits.high)
        if (np.abs(inside - measured) > self._bounds.velocity).any():
            return Alteration.LIMIT
        if self._workspace.depth(inside) < 0:
            return Alteration.WORKSPACE
        still = np.zeros_like(inside)
        self._motion, self._stop = Motion(inside, still, still), inside[None]
        self._goal, self._drift, self._locked = inside, still, np.ones(inside.shape, bool)
        return Alteration.NONE

    def _admissible(self, target: Array, measured: Array) -> tuple[Array, Alteration]:
        """The target, or what of it is near the measured arm, within the joint limits and inside the workspace."""
        assert self._motion is not None
        near = shorten(target, measured, np.full_like(measured, self._limits.max_jump))
        altered = Alteration.NONE if near is target else Alteration.JUMP
        within = np.clip(near, self._limits.low, self._limits.high)
        if not np.array_equal(within, near):
            altered |= Alteration.LIMIT
        goal = self._workspace.before(self._motion.p, within)
        return goal, altered if goal is within else altered | Alteration.WORKSPACE

    def _suggest(self, goal: Array) -> Array:
        """Follow the goal; of its own motion only what lasted for two periods counts, so a single step is no motion."""
        assert self._motion is not None
        bounds = self._cruise
        moved = np.minimum(np.maximum(goal - self._goal, -bounds.velocity), bounds.velocity)
        steady = np.where(moved * self._drift > 0, np.sign(moved) * np.minimum(np.abs(moved), np.abs(self._drift)), 0.0)
        self._goal, self._drift = goal, moved
        return follow(self._motion, goal, steady, self._locked, bounds)

    def _slide(self, goal: Array) -> Array:
        """Follow the walls instead, where the way to the goal leads through them."""
        assert self._motion is not None
        goal = np.clip(self._workspace.along(self._motion.p, goal), self._limits.low, self._limits.high)
        bounds, still = self._cruise, np.zeros_like(goal)
        if not self._motion.v.any() and not self._motion.a.any():
            # So short a step that every joint stops in the next period: the way to rest is as straight as the step.
            least = np.minimum(np.minimum(bounds.velocity, bounds.acceleration), bounds.jerk)
            return shorten(goal, self._motion.p, 0.4 * least)
        return follow(self._motion, goal, still, still > 0, bounds, least_share=0.0)

    def _checked(self, wanted: Array) -> Array | None:
        """The way [N, J] over `wanted`, or what of it can be had, to rest; None when it would leave the workspace.

        A joint that could not keep a limit goes less far towards it, at last no further than on the old stop.
        """
        assert self._motion is not None
        path, kept = self._to_rest(wanted)
        for _ in range(_RETRIES):
            if kept.all():
                break
            wanted = np.where(kept, wanted, (wanted + self._stop[0]) / 2)
            path, kept = self._to_rest(wanted)
        if not kept.all():
            longest = max(len(path), len(self._stop))
            path = np.where(kept, _padded(path, longest), _padded(self._stop, longest))
        return path if self._workspace.holds(path) else None

    def _to_rest(self, wanted: Array) -> tuple[Array, Mask]:
        """The way [N, J] over `wanted` to rest, and for which joints it keeps every limit."""
        assert self._motion is not None
        motion = self._motion.moved_to(wanted)
        stop, kept = stop_from(motion.p, motion.v, motion.a, self._planned.acceleration, self._planned.jerk)
        path = np.vstack([wanted, stop])
        return path, kept & self._within(self._motion, motion) & self._reaches(path)

    def _within(self, before: Motion, after: Motion) -> Mask:
        """Whether one period [J] keeps velocity, acceleration and jerk."""
        bounds = self._bounds
        jerk: Mask = np.abs(after.a - before.a) <= bounds.jerk
        return jerk & (np.abs(after.v) <= bounds.velocity) & (np.abs(after.a) <= bounds.acceleration)

    def _reaches(self, path: Array) -> Mask:
        """Whether positions and velocities along a path [N, J] keep the limits [J]."""
        limits = self._limits
        slow: Mask = np.abs(path[1:] - path[:-1]).max(axis=0) <= self._bounds.velocity
        return slow & (path.min(axis=0) >= limits.low) & (path.max(axis=0) <= limits.high)

    def _go_on(self, path: Array) -> Array:
        assert self._motion is not None
        self._motion, self._stop = self._motion.moved_to(path[0]), path[min(1, len(path) - 1) :]
        return self._motion.p.copy()


def _padded(path: Array, length: int) -> Array:
    return np.vstack([path, np.repeat(path[-1:], length - len(path), axis=0)])


def follow(motion: Motion, goal: Array, drift: Array, locked: Mask, bounds: Bounds, least_share: float = 0.1) -> Array:
    """Return the next positions [J]: the goal itself where it can be had, else on the way to it.

    `drift` [J] is how the goal itself moves per period, `locked` [J] where the last command was the last goal. A goal
    that keeps the limits itself is therefore followed without a lag. One that does not is approached so that the
    command could always come to rest where the goal would. On a straight way: each joint uses a share of its limits in
    proportion to its part of the way, but at least `least_share`.

    Method: jerk-limited online trajectory generation, a relative of Kroeger 2011 (Reflexxes) and of Berscheid and
    Kroeger 2021 (Ruckig), but with one period of foresight: they solve for the whole time-optimal profile, here the
    acceleration of the next period is the one whose stopping point, in closed form, is nearest to that of the goal. It
    is not time-optimal, costs the same every period and takes a new goal, also a moving one, at each. Joints keep to a
    straight way by sharing their limits (phase synchronisation), but not exactly.
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
    """Return `target` itself, or the point on the way from `origin` to it where no joint moves more than `largest`.

    All are [J] rad; the direction of the step is kept.
    """
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


def stop_from(p: Array, v: Array, a: Array, acceleration: Array, jerk: Array) -> tuple[Array, Mask]:
    """Return the positions [N, J] that follow `p` until rest, and for which joints [J] they keep both limits.

    Per joint: the acceleration goes in a straight line to -b, stays there, and goes in a straight line to 0. The three
    counts of periods are whole numbers; b then follows from the velocity that has to vanish. All arguments are [J]:
    `p` rad, `v` rad per period, `a` and `acceleration` rad per period^2, `jerk` rad per period^3.

    Method: the time-optimal stop of a triple integrator with bounded acceleration and jerk (ramp, hold, ramp), the
    final part of jerk-limited online trajectory generation (Kroeger 2011; Berscheid and Kroeger 2021). Ramps and hold
    are rounded up to whole periods and the peak acceleration is solved for again, as Lambrechts, Boerlage and Steinbuch
    2005 do for sampled third-order profiles.
    """
    counts, peak, kept = _profile(v, a, acceleration, jerk)
    first, held, last = counts
    total = int((first + held + last).max()) - 1
    if total <= 1:
        return p[None], kept
    step = np.arange(1.0, total + 1.0)[:, None]
    rising = a + (peak - a) * np.minimum(step / first, 1.0)
    falling = peak * np.minimum(np.maximum((step - first - held) / last, 0.0), 1.0)
    positions: Array = p + (v + (rising - falling).cumsum(axis=0)).cumsum(axis=0)
    return positions, kept


def _profile(v: Array, a: Array, acceleration: Array, jerk: Array) -> tuple[tuple[Array, Array, Array], Array, Mask]:
    """Periods [J] of the three parts, peak acceleration [J] with its sign, and whether both limits are kept [J].

    The counts come from the time-optimal stop of the continuous triple integrator, of which the sums here are samples
    at velocity v + a/2, and are rounded up; of three lengths of the first part the shortest that works is taken.
    """
    after = v + a * (0.5 + np.abs(a) / (2 * jerk))
    sign = np.where(after < 0, -1.0, 1.0)
    speed, pull = sign * v, sign * a
    best = np.minimum(np.sqrt(np.maximum(jerk * (speed + pull / 2) + pull**2 / 2, 0.0)), acceleration)
    last = np.maximum(np.ceil(best / jerk), 1.0)
    shortest = first = np.maximum(np.ceil(np.abs(pull + best) / jerk), 1.0)
    for more in range(1, _TRIES + 1):
        lost = speed + pull * (first - 1) / 2
        ramps = (first + last) / 2
        held = np.maximum(np.ceil(lost / np.maximum(best, 1e-300) - ramps), 0.0)
        needed = lost / (ramps + held)
        size = np.abs(needed)
        kept = (size <= acceleration * _SLACK) & (
            np.maximum(size / last, np.abs(needed + pull) / first) <= jerk * _SLACK
        )
        if kept.all() or more == _TRIES:
            break
        first = np.where(kept, first, shortest + more)
    return (first, held, last), -sign * needed, kept
