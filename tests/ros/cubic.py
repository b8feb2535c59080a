"""How a joint_trajectory_controller gets from point to point: cubics where it gets velocities, else lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from pirl_ros.kinematics import Array


class Cubic:
    """A JointTrajectory taken at time 0 by an arm at `position` [J] that moves at `velocity` [J]; it ends at rest.

    The controller begins with the state that it is in: position and velocity. Joints in the order of the message.
    """

    def __init__(self, message: Any, position: Array, velocity: Array) -> None:
        due = [point.time_from_start.sec + point.time_from_start.nanosec / 1e9 for point in message.points]
        self.times = np.array([0.0, *due])
        self._positions = np.vstack([position, *(point.positions for point in message.points)])
        given = all(len(point.velocities) for point in message.points)
        rest = [point.velocities for point in message.points] if given else []
        self._velocities = np.vstack([velocity, *rest]) if given else None

    def at(self, time_s: float) -> tuple[Array, Array]:
        """Return position and velocity [J]."""
        index = int(np.searchsorted(self.times, time_s, side="right"))
        if index >= len(self.times):
            return self._positions[-1], np.zeros_like(self._positions[-1])
        before, length = self.times[index - 1], self.times[index] - self.times[index - 1]
        (p0, p1), s = self._positions[index - 1 : index + 1], (time_s - before) / length
        slope = (p1 - p0) / length
        if self._velocities is None:
            return p0 + slope * (time_s - before), slope
        v0, v1 = self._velocities[index - 1 : index + 1]
        # Hermite's basis, and its derivative.
        position = p0 + length * (s * v0 + s**2 * (3 * slope - 2 * v0 - v1) + s**3 * (v0 + v1 - 2 * slope))
        return position, v0 + 2 * s * (3 * slope - 2 * v0 - v1) + 3 * s**2 * (v0 + v1 - 2 * slope)
