"""Limited joint targets as messages of arm controllers. Fills messages, never creates them: no ROS here.

N = points of one message, J = joints; rad, seconds. `before_J` is the command that precedes the first point: the last
one sent, or the measured joints when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Vector
from pirl_ros.control import rotations
from pirl_ros.control.kinematics import Chain

Array = NDArray[np.float64]

_ROUNDING_S = 1e-9
_PARTS = slice(0, 3), slice(3, 6)
"""of a twist: linear, angular"""


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
    lead_s: float | None = None,
    first_s: float | None = None,
) -> Any:
    """Write a trajectory_msgs/JointTrajectory; row i is due first_s + i dt_s after the controller receives it.

    `first_s` is dt_s unless given; below 0, row 0 is over.

    The stamp stays 0, which means "from now on" and needs no synchronised clocks. `lead_s` is for a plan, which ends at
    rest: rows due earlier are left out, since a controller that reaches its first point within a cycle or two jumps
    there instead of blending into the path. None is for one command alone: it carries no velocity, so the controller
    moves there in a straight line rather than stopping at each.
    """
    message.joint_names = list(names)
    velocities = None if lead_s is None else point_velocities(positions_NJ, before_J, dt_s)
    last, points = len(positions_NJ) - 1, []
    for index, positions in enumerate(positions_NJ):
        due_s = (dt_s if first_s is None else first_s) + index * dt_s
        if lead_s is not None and due_s < lead_s - _ROUNDING_S:
            if index < last:
                continue
            due_s = lead_s
        point = make_point()
        point.positions = positions.tolist()
        if velocities is not None:
            point.velocities = velocities[index].tolist()
        due = point.time_from_start
        due.sec, due.nanosec = divmod(round(due_s * 1e9), 1_000_000_000)
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
    lead_s: float | None = None,
    first_s: float | None = None,
) -> Any:
    """Write a FollowJointTrajectory.Goal; tolerances stay 0, which means the controller's own."""
    fill_trajectory(goal.trajectory, make_point, names, positions_NJ, before_J, dt_s, lead_s, first_s)
    return goal


def fill_positions(message: Any, names: Sequence[str], positions_J: Array, order: Sequence[str] = ()) -> Any:
    """Write a std_msgs/Float64MultiArray for a forward_command_controller, whose own joint `order` it takes.

    Such a controller has no time-out: it holds the last command forever.
    """
    by_name = dict(zip(names, positions_J.tolist(), strict=True))
    message.data = [by_name[name] for name in order or names]
    return message


def tool_twist(chain: Chain, before_J: Array, positions_J: Array, dt_s: float) -> Array:
    """Return the tool centre's twist [6] that leads from one command to the next in dt_s: m/s, then rad/s, base frame.

    For no next command it is 0: send that too, a servo node else runs on until its own time-out.
    """
    (start, turned), (end, turned_further) = chain.forward(before_J), chain.forward(positions_J)
    return np.concatenate([end - start, rotations.vector(turned_further @ turned.T)]) / dt_s


def twist_excess(chain: Chain, positions_J: Array, twist: Array, velocity_J: Array) -> float:
    """Return how many times larger a twist [6] is than joints at `velocity_J` rad/s can make it at `positions_J`."""
    jacobian = np.abs(chain.jacobian(positions_J)[0])
    reachable = jacobian @ velocity_J
    linear, angular = (_length(twist[part]) / max(_length(reachable[part]), 1e-9) for part in _PARTS)
    return max(linear, angular)


def bounded_twist(twist: Array, linear_m_s: float, angular_rad_s: float) -> Array:
    """Return the twist [6] itself, or slowed down as a whole until it keeps both speeds; its direction stays."""
    linear, angular = (max(_length(twist[part]), 1e-12) for part in _PARTS)
    share = min(linear_m_s / linear, angular_rad_s / angular)
    return twist if share >= 1.0 else share * twist


def _length(vector: Array) -> float:
    return float(np.linalg.norm(vector))


def fill_twist(message: Any, frame: str, stamp_ns: int, twist: Array) -> Any:
    """Write a geometry_msgs/TwistStamped for MoveIt Servo; an old stamp makes Servo stop, so it must be now.

    `twist` [6]: linear m/s, angular rad/s.
    """
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    for part, values in ((message.twist.linear, twist[:3]), (message.twist.angular, twist[3:])):
        part.x, part.y, part.z = (float(value) for value in values)
    return message


def first_positions(message: Any, names: Sequence[str]) -> Vector:
    """Return the first point's positions [J] float32 in the order of `names`. ValueError: other joints, bad numbers."""
    if sorted(message.joint_names) != sorted(names):
        raise ValueError(f"command for {', '.join(message.joint_names) or 'no joint'}; this is {', '.join(names)}")
    if not message.points or len(message.points[0].positions) != len(names):
        raise ValueError(f"command must hold one point with {len(names)} positions")
    by_name = dict(zip(message.joint_names, message.points[0].positions))
    positions = np.array([by_name[name] for name in names], np.float32)
    if not np.isfinite(positions).all():
        raise ValueError(f"command is not finite: {positions.tolist()}")
    return positions
