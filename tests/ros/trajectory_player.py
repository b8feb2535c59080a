"""An arm behind a joint_trajectory_controller: it plays the plans it is given and follows no single command.

Behaviour as in ros2_controllers 4 (trajectory.cpp, joint_trajectory_controller.cpp): an accepted trajectory takes the
place of the running one with the next cycle. Until its first point it blends from the measured state, or with
`interpolate_from_desired_state` from the desired one. Between points: cubics where both ends have velocities, else
straight lines. One stamped in the past is joined where it should be by now, without a blend. A last point that still
moves, joints that are missing or times that do not rise are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pirl_ros.control.kinematics import Array

_AT_REST = 1.2e-7
"""rad/s, largest velocity of a last point"""


class TrajectoryPlayer:
    """Controller and drive. Times are seconds of one clock, joints [J] rad in the order of `names`.

    The drive follows the set-point with a first-order lag; without velocity state interfaces a blend starts at rest.
    """

    def __init__(
        self,
        names: Sequence[str],
        start: Array,
        lag_s: float = 0.0,
        interpolate_from_desired_state: bool = False,
        velocity_state: bool = True,
        cycle_s: float = 0.001,
    ) -> None:
        self._names, self._lag_s, self._cycle_s = list(names), lag_s, cycle_s
        self._from_desired, self._velocity_state = interpolate_from_desired_state, velocity_state
        self.position, self.velocity = start.astype(float), np.zeros(len(start))
        self.desired, self.desired_velocity = self.position.copy(), self.velocity.copy()
        self.now_s = 0.0
        self.set_points: list[Array] = []
        """one a cycle"""
        self.speeds: list[Array] = []
        """of the set-points"""
        self._new: Any = None
        self._times: Array | None = None

    @property
    def moving(self) -> bool:
        """Whether the trajectory has not come to its end."""
        return self._new is not None or (self._times is not None and self.now_s < self._times[-1])

    def accept(self, message: Any) -> str:
        """Take a trajectory; returns '' or why it was refused."""
        if sorted(message.joint_names) != sorted(self._names):
            return f"joints {list(message.joint_names)} are not {self._names}"
        due = [_seconds(point.time_from_start) for point in message.points]
        if not due or (np.diff(due) <= 0).any():
            return f"times do not rise: {due}"
        if np.abs(np.array(message.points[-1].velocities)).max(initial=0.0) > _AT_REST:
            return "the last point still moves"
        stamp_s = _stamp(message)
        if stamp_s and stamp_s + due[-1] < self.now_s:
            return "it ends in the past"
        self._new = message
        return ""

    def hold(self) -> None:
        """What a cancelled goal does: stand where the arm is measured."""
        self._new, self._times = None, None
        self.desired, self.desired_velocity = self.position.copy(), np.zeros_like(self.velocity)

    def run_until(self, now_s: float) -> None:
        """Let cycles pass."""
        while self.now_s + self._cycle_s <= now_s + 1e-9:
            self.now_s += self._cycle_s
            self._cycle()

    def _cycle(self) -> None:
        if self._new is not None:
            self._start(self._new)
            self._new = None
        if self._times is not None:
            self.desired, self.desired_velocity = self._sample(self.now_s)
        share = 1.0 if self._lag_s == 0 else 1.0 - np.exp(-self._cycle_s / self._lag_s)
        moved = share * (self.desired - self.position)
        self.position, self.velocity = self.position + moved, moved / self._cycle_s
        self.set_points.append(self.desired)
        self.speeds.append(self.desired_velocity)

    def _start(self, message: Any) -> None:
        order = [list(message.joint_names).index(name) for name in self._names]
        start_s = _stamp(message) or self.now_s
        due = start_s + np.array([_seconds(point.time_from_start) for point in message.points])
        positions = np.array([point.positions for point in message.points])[:, order]
        cubic = all(len(point.velocities) for point in message.points)
        velocities = np.array([point.velocities for point in message.points])[:, order] if cubic else None
        if due[0] > self.now_s:
            here = self.desired if self._from_desired else self.position
            speed = self.desired_velocity if self._from_desired else self.velocity
            if not self._from_desired and not self._velocity_state:
                speed = np.zeros_like(speed)
            due, positions = np.append(self.now_s, due), np.vstack([here, positions])
            velocities = None if velocities is None else np.vstack([speed, velocities])
        self._times, self._positions, self._velocities = due, positions, velocities

    def _sample(self, now_s: float) -> tuple[Array, Array]:
        assert self._times is not None
        index = int(np.searchsorted(self._times, now_s, side="right"))
        if index >= len(self._times):
            return self._positions[-1], np.zeros_like(self._positions[-1])
        start_s, length = self._times[index - 1], self._times[index] - self._times[index - 1]
        (p0, p1), s = self._positions[index - 1 : index + 1], (now_s - start_s) / length
        slope = (p1 - p0) / length
        if self._velocities is None:
            return p0 + slope * (now_s - start_s), slope
        v0, v1 = self._velocities[index - 1 : index + 1]
        # Hermite's basis, and its derivative.
        position = p0 + length * (s * v0 + s**2 * (3 * slope - 2 * v0 - v1) + s**3 * (v0 + v1 - 2 * slope))
        return position, v0 + 2 * s * (3 * slope - 2 * v0 - v1) + 3 * s**2 * (v0 + v1 - 2 * slope)


def _seconds(duration: Any) -> float:
    return float(duration.sec + duration.nanosec / 1e9)


def _stamp(message: Any) -> float:
    return _seconds(message.header.stamp) if hasattr(message, "header") else 0.0
