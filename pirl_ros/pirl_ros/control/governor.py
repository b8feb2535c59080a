"""The governor: limits every command, last before the arm's controller. Software, not safety-rated.

A step is taken only when a full stop after it, worked out to its end, keeps every limit: position, velocity,
acceleration, jerk, and the tool centre inside the workspace. Otherwise the stop computed before continues. So there is
always one left to make, whatever comes in next, and the proof is the check in `_to_rest` and nothing else.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from pirl_contract.schema import Alteration
from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limits import Limits
from pirl_ros.control.stop_trajectory import Array, Mask, stop_from
from pirl_ros.control.trajectory_tracking import Bounds, Motion, follow, shorten
from pirl_ros.control.workspace import Workspace

_PLANNED = 1.0 - 1e-6
"""share of each limit that is planned with, so that rounding stays below the limit"""
_RETRIES = 3
"""how often a step that has no stop is halved"""
_SETTLED_S = 0.5
"""after which a drive that lags has caught up with a command at rest"""


class Governor:
    """One command per control period. `command` follows a target, `brake` comes to rest and stays there."""

    def __init__(self, limits: Limits, chain: Chain) -> None:
        """Reject to exist without complete limits: ValueError."""
        if len(chain.origins) != len(limits.low):
            raise ValueError(f"the governor needs kinematics of {len(limits.low)} joints, got {len(chain.origins)}")
        self._limits = limits
        self._workspace = Workspace(limits.workspace_low, limits.workspace_high, chain)
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

    def set_speed(self, share: float) -> None:
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
        """Return the joint command [J] for `target` and what was altered; None: command nothing.

        Ages that are NaN or negative count as too old, as everything unknown does.
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
