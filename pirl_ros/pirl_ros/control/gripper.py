"""A gripper commanded by goals: two positions, switched with hysteresis and settling time. Does not import ROS."""

from __future__ import annotations

import math
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
