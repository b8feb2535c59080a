"""A gripper: its positions and openings, the speed of a target, and goals with hysteresis. Does not import ROS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any

from pirl_ros.profile.sections import GripperGroup

OPEN, CLOSED = 1.0, -1.0


class GripperSwitch:
    """Turns gripper actions in [-1 closed, 1 open] into the few goals worth sending.

    A policy's gripper value trembles around its threshold, and each goal to a real gripper interrupts the one under
    way: hence a band in which nothing changes, and a settling time for a new command.
    """

    def __init__(self, gripper: GripperGroup) -> None:
        self._gripper = gripper
        self._sent: float | None = None
        self._wanted: float | None = None
        self._since_s = 0.0

    @property
    def state(self) -> float | None:
        """The action that stands: OPEN or CLOSED; None before the first goal and after `release`."""
        return self._sent

    def update(self, action: float, now_s: float) -> float | None:
        """Return the position to send as a goal now, or None. Times are of one monotonic clock."""
        wanted = self._target_of(action)
        if wanted is None or wanted == self._sent:
            self._wanted = None
            return None
        if wanted != self._wanted:
            self._wanted, self._since_s = wanted, now_s
        if now_s - self._since_s < self._gripper.settle:
            return None
        self._sent, self._wanted = wanted, None
        return self._gripper.open if wanted == OPEN else self._gripper.closed

    def release(self) -> None:
        """Forget the last command, so that the next one is sent: after a rejected goal, a reset, or another source."""
        self._sent = self._wanted = None

    def _target_of(self, action: float) -> float | None:
        if not math.isfinite(action):
            return None
        if action > self._gripper.open_above:
            return OPEN
        return CLOSED if action < self._gripper.close_below else self._sent


class Grippers:
    """The openings in [-1 closed, 1 open] of each arm's gripper, as they are commanded; before that, as measured."""

    def __init__(self, grippers: Sequence[GripperGroup], period_s: float, speed_scale: float) -> None:
        self._grippers = tuple(grippers)
        self.openings = (1.0,) * len(self._grippers)
        self.asked = (False,) * len(self._grippers)
        """which of them the newest `move` was for; the others are to be left alone"""
        self._commanded = self.asked
        # A goal's speed is the gripper driver's business.
        self._rates = [
            GripperRate(each, period_s, speed_scale) if each.kind == "joint_trajectory" else None for each in grippers
        ]

    @property
    def metres(self) -> tuple[float, ...]:
        """The newest finger targets, each in its gripper's unit."""
        return tuple(map(gripper_metres, self._grippers, self.openings))

    def move(self, wanted: Sequence[float | None]) -> bool:
        """Move each opening as fast as its limit allows; None: leave it. Returns whether all are where wanted."""
        moved = [
            opening if to is None else to if rate is None else rate.step(to)
            for opening, to, rate in zip(self.openings, wanted, self._rates)
        ]
        self.openings, self.asked = tuple(moved), tuple(to is not None for to in wanted)
        self._commanded = tuple(map(max, self._commanded, self.asked))
        return all(to is None or to == opening for to, opening in zip(wanted, moved))

    def start_at(self, fingers: Sequence[float | None], keep_grasp: bool) -> None:
        """Start from where the fingers are measured, as `GripperRate.start_at` does."""
        openings = list(self.openings)
        for number, (rate, finger) in enumerate(zip(self._rates, fingers)):
            if rate is not None:
                rate.start_at(finger, keep_grasp)
            if finger is not None and math.isfinite(finger) and not self._commanded[number]:
                openings[number] = gripper_action(self._grippers[number], finger)
        self.openings = tuple(openings)

    def set_speed_scale(self, share: float) -> None:
        """Use only this share (0, 1] of the velocity limits."""
        for rate in self._rates:
            if rate is not None:
                rate.set_speed_scale(share)

    def copy(self) -> Grippers:
        """Return an independent copy."""
        other = copy(self)
        other._rates = [None if rate is None else rate.copy() for rate in self._rates]
        return other


class GripperRate:
    """Bounds the speed of a gripper target that follows the action step by step; in units of the action, [-1, 1].

    Where the fingers are is measured at the start and after another source may have moved them. Fingers that press an
    object stand wider than their target: within an episode such a target is kept, or the object would slip.
    """

    def __init__(self, gripper: GripperGroup, period_s: float, speed_scale: float) -> None:
        stroke = abs(gripper.open - gripper.closed)
        self._gripper, self._largest = gripper, 2.0 * gripper.velocity_limit * speed_scale * period_s / stroke
        self._share = 1.0
        self._at: float | None = None

    def set_speed_scale(self, share: float) -> None:
        """Use only this share (0, 1] of the velocity limit."""
        self._share = share

    def start_at(self, finger: float | None, keep_grasp: bool = False) -> None:
        """Start from the measured finger, in the gripper's unit; None: it is not measured, continue from the target."""
        if finger is None or not math.isfinite(finger):
            return
        measured = gripper_action(self._gripper, finger)
        if not (keep_grasp and self._at is not None and self._at < measured):
            self._at = measured

    def step(self, wanted: float) -> float:
        """Return the action one period on: `wanted`, or as far towards it as the limit allows."""
        largest = self._share * self._largest
        if self._at is None or abs(wanted - self._at) <= largest:
            self._at = wanted
        else:
            self._at += math.copysign(largest, wanted - self._at)
        return self._at

    def copy(self) -> GripperRate:
        """Return an independent copy."""
        return copy(self)


def gripper_metres(gripper: GripperGroup, action: float) -> float:
    """Return the finger target in metres for a gripper action in [-1 closed, 1 open]."""
    return gripper.closed + (float(action) + 1.0) / 2.0 * (gripper.open - gripper.closed)


def gripper_action(gripper: GripperGroup, metres: float) -> float:
    """Return the gripper action in [-1, 1] for a finger target in metres: the inverse of `gripper_metres`.

    NaN for NaN: it must not close.
    """
    action = (metres - gripper.closed) / (gripper.open - gripper.closed) * 2.0 - 1.0
    return action if math.isnan(action) else min(1.0, max(-1.0, action))


def fill_gripper_goal(goal: Any, gripper: GripperGroup, position: float, velocity: float) -> Any:
    """Write a ParallelGripperCommand.Goal or a GripperCommand.Goal, as the profile's kind says.

    Only the former takes a `velocity` in unit/s, 0 for none; only a controller with a velocity interface uses it.
    """
    if gripper.kind == "gripper_command":
        goal.command.position, goal.command.max_effort = position, gripper.max_effort
        return goal
    assert gripper.kind == "parallel_gripper_command", f"{gripper.kind} takes no goals"
    goal.command.name, goal.command.position = [gripper.command_joint], [position]
    if velocity:
        goal.command.velocity = [velocity]
    if gripper.max_effort:
        goal.command.effort = [gripper.max_effort]
    return goal
