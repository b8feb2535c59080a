"""Governed joint targets as the messages that arm controllers take. Messages are filled, never made: no ROS here.

N = points of one message, J = joints; rad, seconds. `before_J` is the command that precedes the first point: the last
one sent, or the measured joints when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_ros.kinematics import Chain, rotation_vector

Array = NDArray[np.float64]


def point_velocities(positions_NJ: Array, before_J: Array, dt_s: float) -> Array:
    """Return velocities [N, J] at points dt_s apart, so that cubics through them neither overshoot nor break at joins.

    The harmonic mean of the slopes on both sides, 0 where the direction turns (Fritsch and Butland 1984): the cubic
    between two points stays between them, so it keeps the position limits that the points keep, and a velocity is never
    above the steeper slope. A velocity depends on the neighbours of its point only: two messages that share the points
    around it agree on it. The last is 0: without a newer message the arm comes to rest there, as controllers demand.
    """
    slopes = np.diff(np.vstack([before_J, positions_NJ]), axis=0) / dt_s
    left, right = slopes[:-1], slopes[1:]
    velocities = np.zeros_like(slopes)
    product = left * right
    same = product > 0
    velocities[:-1][same] = 2.0 * product[same] / (left + right)[same]
    return velocities


def fill_trajectory(
    message: Any,
    make_point: Callable[[], Any],
    names: Sequence[str],
    positions_NJ: Array,
    before_J: Array,
    dt_s: float,
) -> Any:
    """Write a trajectory_msgs/JointTrajectory; the first point is due dt_s after the controller gets it.

    The stamp stays 0, which means "from now on" and needs no synchronised clocks. One point alone carries no velocity:
    the controller then moves there in a straight line, rather than stopping at each.
    """
    message.joint_names = list(names)
    velocities = point_velocities(positions_NJ, before_J, dt_s) if len(positions_NJ) > 1 else None
    points = []
    for index, positions in enumerate(positions_NJ):
        point = make_point()
        point.positions = positions.tolist()
        if velocities is not None:
            point.velocities = velocities[index].tolist()
        due = point.time_from_start
        due.sec, due.nanosec = divmod(round((index + 1) * dt_s * 1e9), 1_000_000_000)
        points.append(point)
    message.points = points
    return message


def fill_goal(
    goal: Any,
    make_point: Callable[[], Any],
    names: Sequence[str],
    positions_NJ: Array,
    before_J: Array,
    dt_s: float,
) -> Any:
    """Write a FollowJointTrajectory.Goal; tolerances stay 0, which means the controller's own."""
    fill_trajectory(goal.trajectory, make_point, names, positions_NJ, before_J, dt_s)
    return goal


def fill_positions(message: Any, names: Sequence[str], positions_J: Array, order: Sequence[str] = ()) -> Any:
    """Write a std_msgs/Float64MultiArray for a forward_command_controller, whose own joint `order` it takes.

    Such a controller has no time-out: it holds the last command for ever.
    """
    by_name = dict(zip(names, positions_J.tolist(), strict=True))
    message.data = [by_name[name] for name in order or names]
    return message


def tool_twist(chain: Chain, before_J: Array, positions_J: Array, dt_s: float) -> Array:
    """Return the tool centre's twist [6] that leads from one command to the next in dt_s: m/s, then rad/s, base frame.

    For no next command it is 0: send that too, a servo node else runs on until its own time-out.
    """
    (start, turned), (end, turned_further) = chain.forward(before_J), chain.forward(positions_J)
    return np.concatenate([end - start, rotation_vector(turned_further @ turned.T)]) / dt_s


def fill_twist(message: Any, frame: str, stamp_ns: int, twist: Array) -> Any:
    """Write a geometry_msgs/TwistStamped for MoveIt Servo; an old stamp makes Servo stop, so it must be now."""
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    for part, values in ((message.twist.linear, twist[:3]), (message.twist.angular, twist[3:])):
        part.x, part.y, part.z = (float(value) for value in values)
    return message
