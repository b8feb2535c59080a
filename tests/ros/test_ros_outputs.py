"""What controllers get: true times, velocities that join, joints in the controller's order, twists that lead there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from pirl_ros.control.kinematics import Chain
from pirl_ros.messages.controller_messages import (
    fill_goal,
    fill_positions,
    fill_trajectory,
    fill_twist,
    point_velocities,
    tool_twist,
)
from pirl_ros.profile.profile import Profile

DT = 0.05
MICRORADIANS = st.integers(-3_000_000, 3_000_000)
PATHS = hnp.arrays(np.int64, st.tuples(st.integers(3, 12), st.just(2)), elements=MICRORADIANS).map(lambda a: a / 1e6)


def stamp() -> SimpleNamespace:
    return SimpleNamespace(sec=0, nanosec=0)


def make_point() -> SimpleNamespace:
    return SimpleNamespace(time_from_start=stamp(), velocities=[])


def spline(path: np.ndarray) -> CubicHermiteSpline:
    """What a joint_trajectory_controller makes of positions and velocities."""
    velocities = np.vstack([np.zeros((1, path.shape[1])), point_velocities(path[1:], path[0], DT)])
    return CubicHermiteSpline(np.arange(len(path)) * DT, path, velocities)


@given(PATHS)
def test_the_curve_between_two_points_stays_between_them(path: np.ndarray) -> None:
    curve = spline(path)
    for index in range(len(path) - 1):
        low, high = np.minimum(path[index], path[index + 1]), np.maximum(path[index], path[index + 1])
        inside = curve(np.linspace(index, index + 1, 9) * DT)
        assert (inside >= low - 1e-9).all()
        assert (inside <= high + 1e-9).all()


def test_tiny_and_huge_steps_do_not_overflow() -> None:
    path = np.array([[5e-324], [1e-320], [3.0], [1e300]])
    assert np.isfinite(point_velocities(path, np.zeros(1), DT)).all()


def test_plain_central_differences_would_leave_the_points() -> None:
    """Negative control of the test above: the usual choice overshoots where a motion stops."""
    path = np.array([[0.0], [0.0], [1.0], [1.0], [1.0]])
    curve = CubicHermiteSpline(np.arange(5) * DT, path, np.gradient(path, DT, axis=0))
    assert curve(np.linspace(0, 4, 99) * DT).max() > 1.05


@given(PATHS)
def test_interior_velocities_are_those_of_an_independent_monotone_cubic(path: np.ndarray) -> None:
    expected = PchipInterpolator(np.arange(len(path)) * DT, path).derivative()(np.arange(1, len(path) - 1) * DT)
    np.testing.assert_allclose(point_velocities(path[1:], path[0], DT)[:-1], expected, rtol=1e-6, atol=1e-6)


@given(PATHS, st.data())
def test_a_later_message_of_the_same_plan_agrees_on_every_velocity(path: np.ndarray, data: st.DataObject) -> None:
    start = data.draw(st.integers(1, len(path) - 2))
    whole = point_velocities(path[1:], path[0], DT)
    rest = point_velocities(path[start + 1 :], path[start], DT)
    np.testing.assert_array_equal(rest, whole[start:])


def test_steady_motion_keeps_its_velocity_across_messages_and_ends_at_rest() -> None:
    path = np.arange(1, 6)[:, None] * np.array([[0.1, -0.05]])
    velocities = point_velocities(path, np.zeros(2), DT)
    np.testing.assert_allclose(velocities[:-1], np.tile([2.0, -1.0], (4, 1)))
    assert velocities[-1].tolist() == [0.0, 0.0]


def test_trajectory_has_true_times_and_starts_above_zero() -> None:
    path = np.arange(60).reshape(30, 2) / 100
    message = fill_trajectory(SimpleNamespace(), make_point, ["a", "b"], path, np.zeros(2), DT, lead_s=0.0)
    due = [point.time_from_start.sec + point.time_from_start.nanosec / 1e9 for point in message.points]
    np.testing.assert_allclose(due, np.arange(1, 31) * DT, rtol=1e-12)
    assert all(isinstance(value, int) for point in message.points for value in vars(point.time_from_start).values())
    assert message.joint_names == ["a", "b"]
    assert message.points[7].positions == path[7].tolist()
    assert message.points[-1].velocities == [0.0, 0.0]
    assert not hasattr(message, "header"), "the stamp stays 0: from now on"


def test_one_point_alone_does_not_stop_there() -> None:
    message = fill_trajectory(SimpleNamespace(), make_point, ["a"], np.array([[0.5]]), np.zeros(1), DT)
    assert [list(point.velocities) for point in message.points] == [[]]


def test_goal_holds_the_trajectory() -> None:
    goal = fill_goal(SimpleNamespace(trajectory=SimpleNamespace()), make_point, ["a"], np.ones((2, 1)), np.ones(1), DT)
    assert len(goal.trajectory.points) == 2


def test_positions_in_the_order_of_the_controller() -> None:
    message = fill_positions(SimpleNamespace(), ["a", "b", "c"], np.array([1.0, 2.0, 3.0]), ["c", "a", "b"])
    assert message.data == [3.0, 1.0, 2.0]
    assert fill_positions(SimpleNamespace(), ["a", "b"], np.array([1.0, 2.0])).data == [1.0, 2.0]
    with pytest.raises(ValueError, match="zip"):
        fill_positions(SimpleNamespace(), ["a"], np.array([1.0, 2.0]))


def test_twist_leads_from_one_command_to_the_next(profile: Profile) -> None:
    chain = Chain.from_table(profile.kinematics)
    start = np.array([0.1, 0.4, -0.2, -2.0, 0.1, 2.3, 0.8])
    step = np.array([0.01, -0.02, 0.01, 0.02, 0.0, 0.01, -0.02])
    twist = tool_twist(chain, start, start + step, DT)
    jacobian, _, _ = chain.jacobian(start + step / 2)
    np.testing.assert_allclose(twist, jacobian @ step / DT, rtol=5e-3, atol=2e-4)
    assert not tool_twist(chain, start, start, DT).any()
    message = SimpleNamespace(
        header=SimpleNamespace(frame_id="", stamp=stamp()),
        twist=SimpleNamespace(linear=SimpleNamespace(), angular=SimpleNamespace()),
    )
    fill_twist(message, "base", 2_000_000_007, twist)
    assert (message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec) == ("base", 2, 7)
    assert (message.twist.linear.z, message.twist.angular.x) == (twist[2], twist[3])
