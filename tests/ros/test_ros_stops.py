"""An arm that plays plans stops whenever its motion ends, and no command on the way leaves a limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pirl_contract.schema import Alteration
from pirl_ros.control.limit_check import violations

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="rclpy is not importable: pip install 'pirl[ros]' or source an apt ROS 2")

from planned_arm import OUTPUTS, PlannedArm, shipped  # noqa: E402

ARMS = [(name, output) for name in ("franka", "so100", "ur5e") for output in OUTPUTS]
# Five joints keep no orientation of the tool: no twist.
ARMS.remove(("so100", "servo_twist"))
WAYS = (
    "end", "deactivate", "next episode", "emergency stop", "hold", "takeover", "no state", "chunk, then end",
)  # fmt: skip
CASES = (
    (0.001, 0.0, True),
    (0.01, 0.05, False),
    (0.05, 0.02, True),
    (0.2, 0.1, False),
    (0.5, 0.1, True),
    (10.0, 0.05, True),
)
"""speed in rad/s, of which the last is above any limit; the drive's lag in s; interpolate_from_desired_state"""
SETTLED_RAD = 2e-3
"""what is left after three seconds of a lag, and of a twist that is integrated"""


def moving(monkeypatch: Any, name: str, output: str, speed: float, lag_s: float, **more: Any) -> PlannedArm:
    arm = PlannedArm(shipped(name, output), monkeypatch, lag_s, **more)
    arm.run(3)
    assert arm.chunk(arm.sweep(50, speed)) == ""
    arm.run(10)
    assert np.abs(arm.velocity).max() > 0, "it must move"
    return arm


def moved_on(arm: PlannedArm, way: str) -> tuple[float, float]:
    """End the motion; how far a joint moves beyond its stopping distance from the newest command, and from that."""
    newest, allowed = arm.commands[-1], arm.stopping_distance()
    arm.ending(way)
    beyond = np.abs(arm.arm.position - newest)
    return float((beyond - allowed).max()), float(beyond.max())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "output"), ARMS)
def test_the_arm_stops_within_its_stopping_distance(monkeypatch: Any, name: str, output: str, way: str) -> None:
    """Each arm and output meets every second speed, in turns, so that each way meets each speed."""
    turn = (ARMS.index((name, output)) + WAYS.index(way)) % 2
    for speed, lag_s, from_desired in CASES[turn::2]:
        arm = moving(monkeypatch, name, output, speed, lag_s, from_desired=from_desired)
        excess, _ = moved_on(arm, way)
        case = f"{name} {output} {way} at {speed} rad/s, lag {lag_s}"
        assert excess < SETTLED_RAD, f"{case}: {excess:.4f} rad too far"
        assert not arm.refused, case
        assert not arm.faults, case
        assert not violations(np.array([arm.start, *arm.commands]), arm.limits, arm.chain), case


@pytest.mark.parametrize("output", ["joint_trajectory", "follow_joint_trajectory", "servo_twist"])
def test_without_the_word_at_the_end_a_slow_arm_plays_on(monkeypatch: Any, output: str) -> None:
    """Negative control: nothing is sent once nothing is commanded, and the plan, or the last twist, goes on."""
    arm = moving(monkeypatch, "franka", output, 0.05, 0.0)
    for controller in arm.controllers._all:
        monkeypatch.setattr(controller, "rest", lambda ahead: None)
    excess, beyond = moved_on(arm, "end")
    assert excess > 10 * SETTLED_RAD
    assert beyond > 0.05


@pytest.mark.parametrize("execute", [5, 20])
def test_a_plan_reaches_no_further_than_the_arm_would_be_driven(monkeypatch: Any, execute: int) -> None:
    """A controller whose commander was killed plays what it has: no more than execute_horizon and link_loss_s."""
    arm = PlannedArm(shipped("franka", "joint_trajectory"), monkeypatch)
    arm.run(3)
    arm.chunk(arm.sweep(50, 0.2), execute)
    arm.run(1)
    driven = execute + round(arm.profile.safety.link_loss_s / arm.dt_s) + 1
    [message] = arm.messages
    assert driven <= len(message.points) <= driven + 12, "and the stop from there"
    killed = arm.commands[-1]
    arm.arm.run_until(arm.arm.now_s + 20.0)
    assert np.abs(arm.arm.position - killed).max() < 0.2 * arm.dt_s * (driven + 3)


def step_sizes(arm: PlannedArm) -> float:
    """Largest speed of the controller's set-point, rad/s as part of the joint's limit."""
    speeds = np.abs(np.diff(arm.arm.set_points, axis=0)).max(axis=0) / 0.001
    return float((speeds / arm.limits.velocity).max())


def replanned(monkeypatch: Any, lag_s: float, from_desired: bool, controller_rate_hz: float = 100.0) -> PlannedArm:
    """An arm that gets a chunk each quarter of a second, as from a server."""
    profile = shipped("franka", "joint_trajectory")
    command = replace(profile.command, controller_rate_hz=controller_rate_hz)
    arm = PlannedArm(replace(profile, command=command), monkeypatch, lag_s, from_desired, cycle_s=0.001)
    arm.run(3)
    for _ in range(8):
        arm.chunk(arm.sweep(30, 0.5))
        arm.run(5)
    return arm


@pytest.mark.parametrize("lag_s", [0.0, 0.02, 0.05, 0.1])
def test_a_new_chunk_makes_no_step_when_the_controller_goes_on_from_its_desired_state(
    monkeypatch: Any, lag_s: float
) -> None:
    assert step_sizes(replanned(monkeypatch, lag_s, from_desired=True)) < 1.05


def test_the_default_setting_steps_back_by_the_lag(monkeypatch: Any) -> None:
    """Negative control, and why the setting is asked for: the same messages, 0.1 s of lag."""
    assert step_sizes(replanned(monkeypatch, 0.1, from_desired=False)) > 5.0


@pytest.mark.parametrize("controller_rate_hz", [10.0, 30.0, 100.0, 1000.0])
def test_each_plan_starts_two_controller_cycles_ahead_on_its_path(monkeypatch: Any, controller_rate_hz: float) -> None:
    arm = replanned(monkeypatch, 0.0, True, controller_rate_hz)
    assert len(arm.messages) > 5
    for message in arm.messages:
        first = message.points[0]
        due_s = first.time_from_start.sec + first.time_from_start.nanosec / 1e9
        assert due_s >= 2 / controller_rate_hz - 1e-9
        assert due_s < 2 / controller_rate_hz + arm.dt_s
        assert len(first.velocities) == len(arm.start), "it has the path's velocity"
        assert not np.any(message.points[-1].velocities)
    assert step_sizes(arm) < 1.05


@pytest.mark.parametrize("way", ["latched", "idle"])
def test_a_twist_holds_nothing_of_where_somebody_moved_the_arm(monkeypatch: Any, way: str) -> None:
    arm = moving(monkeypatch, "ur5e", "servo_twist", 0.1, 0.0)
    arm.ending("emergency stop" if way == "latched" else "end")
    sent = len(arm.twists)
    elsewhere = arm.arm.position.copy()
    elsewhere[0] += 0.6
    arm.arm.position, arm.arm.desired = elsewhere, elsewhere.copy()
    arm.run(round(2.0 / arm.dt_s))
    if way == "idle":
        arm.chunk(arm.sweep(50, 0.1))
        arm.run(10)
    command = arm.profile.command
    after = np.array(arm.twists[sent:]) if len(arm.twists) > sent else np.zeros((1, 6))
    assert np.linalg.norm(after[:, :3], axis=1).max() <= command.max_linear_speed + 1e-9
    assert np.linalg.norm(after[:, 3:], axis=1).max() <= command.max_angular_speed + 1e-9
    assert not arm.faults
    if way == "latched":
        assert not after.any(), "nobody commands anything"


def test_a_twist_from_an_older_command_is_refused(monkeypatch: Any) -> None:
    """Negative control: what the controller must not send, from before the arm was moved to after."""
    arm = moving(monkeypatch, "ur5e", "servo_twist", 0.1, 0.0)
    twist = arm.controllers._all[0]
    moved = arm.commands[-1] + np.array([0.6, 0, 0, 0, 0, 0])
    command = SimpleCommand(moved, arm.commands[-1])
    assert twist.send(command, lambda: None) & Alteration.LIMIT
    assert not arm.twists[-1].any()
    assert "not sent" in arm.faults[-1]


def SimpleCommand(joints: Any, before: Any) -> Any:
    from pirl_contract.schema import ControlSource
    from pirl_ros.control.action_mapping import ArmCommand

    return ArmCommand(joints, 0.0, np.zeros(4, np.float32), Alteration.NONE, ControlSource.POLICY, before)


@pytest.mark.parametrize("speed", [10.0])
@pytest.mark.parametrize("name", ["franka", "ur5e"])
def test_a_twist_is_slowed_down_as_a_whole(monkeypatch: Any, name: str, speed: float) -> None:
    profile = shipped(name, "servo_twist")
    slow = replace(profile, command=replace(profile.command, max_linear_speed=0.05, max_angular_speed=0.2))
    arm = PlannedArm(slow, monkeypatch)
    arm.run(3)
    arm.chunk(arm.sweep(50, speed))
    arm.run(30)
    speeds = np.linalg.norm(np.array(arm.twists)[:, :3], axis=1)
    assert speeds.max() == pytest.approx(0.05)
    assert any(bits & Alteration.LIMIT for bits in arm.bits), "and that is reported"


@pytest.mark.parametrize("name", ["so100", "franka"])
def test_a_gripper_target_keeps_its_velocity_limit(monkeypatch: Any, name: str) -> None:
    profile = shipped(name, "joint_trajectory")
    profile = replace(profile, gripper=replace(profile.gripper, kind="joint_trajectory"))
    arm = PlannedArm(profile, monkeypatch)
    gripper, scale = profile.gripper, profile.safety.speed_scale
    arm.finger = gripper.closed
    arm.run(3)
    for opening in (1.0, -1.0, 0.3, 1.0, -1.0):
        arm.chunk(arm.sweep(40, 0.01, opening))
        arm.run(25)
    path = np.array([gripper.closed, *arm.gripper_targets])
    speed = np.abs(np.diff(path)).max() / arm.dt_s
    assert speed == pytest.approx(gripper.velocity_limit * scale, rel=1e-6), "as fast as it may, and no faster"
    assert path.max() == pytest.approx(gripper.open)
    assert path.min() == pytest.approx(gripper.closed)
    assert any(bits & Alteration.LIMIT for bits in arm.bits), "alterations are reported"


def test_the_wish_itself_would_be_far_above_the_limit() -> None:
    """Negative control of the test above: what was sent before there was a limit."""
    profile = shipped("so100", "joint_trajectory")
    stroke = abs(profile.gripper.open - profile.gripper.closed)
    assert stroke * profile.rate_hz > 20 * profile.gripper.velocity_limit


def test_a_grasp_outlasts_a_change_of_hands(monkeypatch: Any) -> None:
    """Fingers that press an object stand wider than their target: the target stays when the latch is opened."""
    profile = shipped("so100", "joint_trajectory")
    arm = PlannedArm(profile, monkeypatch)
    arm.run(3)
    arm.chunk(arm.sweep(50, 0.01, -1.0))
    arm.run(50)
    assert arm.gripper_targets[-1] == pytest.approx(profile.gripper.closed, abs=1e-3)
    arm.finger = 0.6
    arm.executor.emergency_stop("a test", "test")
    arm.run(20)
    arm.executor.clear_emergency_stop("test")
    arm.executor.engage("test")
    arm.run(2)
    before = len(arm.gripper_targets)
    arm.chunk(arm.sweep(10, 0.01, -1.0))
    arm.run(5)
    assert arm.gripper_targets[before:] == pytest.approx([profile.gripper.closed] * 5, abs=1e-3)
