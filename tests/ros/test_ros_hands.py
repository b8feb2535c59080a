"""People in the loop of the arm: emergency stop, takeover, hand-back, and whatever they do in whatever order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from driven_arm import PERIOD_NS, READY, DrivenArm, real_profile
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_contract import ControlSource
from pirl_ros.control.control_source import JointTarget, TcpTwist
from pirl_ros.control.gripper import gripper_action
from pirl_ros.profile.profile import Profile


@pytest.fixture
def arm(profile: Profile) -> DrivenArm:
    arm = DrivenArm(real_profile(profile))
    arm.run(3)
    assert arm.commands == [], "nobody asked for anything"
    assert arm.mode == "idle"
    arm.executor.begin("e")
    arm.run()
    return arm


def test_emergency_stop_takes_two_acts_to_move_again(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(50))
    arm.run(10)
    arm.executor.emergency_stop("smoke", "operator")
    arm.run()
    assert arm.mode == "decelerating"
    arm.rest()
    report = arm.executor.report
    assert (arm.mode, report.emergency_stop, report.latched) == ("stopped", True, True)
    assert "smoke" in report.reason
    for refused in (
        arm.chunk(arm.sweep(5)),
        arm.executor.engage("test"),
        arm.executor.set_control_source(ControlSource.HUMAN, "test"),
        arm.executor.update_teleop(JointTarget(READY), arm.now_ns),
    ):
        assert "smoke" in refused
    arm.executor.begin("next")
    assert arm.executor.report.emergency_stop, "a new episode does not clear it"
    assert arm.executor.clear_emergency_stop("operator") == ""
    assert arm.executor.clear_emergency_stop("operator") != ""
    still = arm.commands[-1]
    arm.chunk(arm.sweep(5), episode="next")
    arm.run(20)
    np.testing.assert_array_equal(arm.commands[-1], still)
    assert arm.executor.engage("operator") == ""
    assert arm.executor.report.last_act == "engaged by operator"
    arm.run()
    arm.chunk(arm.sweep(5), episode="next")
    arm.run(5)
    assert (arm.commands[-1] != still).any()
    assert arm.violations() == {}


def test_takeover_and_hand_back_are_smooth_and_recorded(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(50))
    arm.run(10)
    assert arm.executor.set_control_source(ControlSource.HUMAN, "gamepad") == ""
    assert "control source is human" in arm.chunk(arm.sweep(5))
    for _ in range(40):
        assert arm.executor.update_teleop(JointTarget(READY - 0.1, gripper=-1.0), arm.now_ns) == ""
        arm.run()
        assert arm.mode == "human"
    np.testing.assert_allclose(arm.commands[-1], READY - 0.1, atol=1e-9)
    human = [outcome for outcome in arm.outcomes if outcome.source == ControlSource.HUMAN]
    assert len(human) == 39
    assert {outcome.chunk_id for outcome in human} == {""}
    assert human[-1].executed[-1] == -1.0
    assert arm.executor.set_control_source(ControlSource.POLICY, "gamepad") == ""
    arm.run()
    arm.chunk(arm.sweep(20))
    arm.run(20)
    assert arm.outcomes[-1].source == ControlSource.POLICY
    assert arm.violations() == {}


@pytest.mark.parametrize("kind", ["joint_trajectory", "gripper_command"])
@pytest.mark.parametrize("commanded", [False, True])
def test_a_hand_that_names_no_gripper_leaves_it_as_it_is(profile: Profile, kind: str, commanded: bool) -> None:
    """Fingers that hold an object, or stand where nobody commanded them to, are sent nothing."""
    gripper = replace(profile.gripper, kind=kind)  # type: ignore[arg-type]
    arm = DrivenArm(replace(real_profile(profile), gripper=gripper))
    arm.executor.begin("e")
    if commanded:
        arm.chunk(np.hstack([np.tile(READY, (20, 1)), np.full((20, 1), -1.0)]))
        arm.run(20)
    arm.executor.set_control_source(ControlSource.HUMAN, "gamepad")
    arm.run()
    before = len(arm.ticks)
    for _ in range(5):
        arm.executor.update_teleop(TcpTwist(np.array([0.05, 0.0, 0.0])), arm.now_ns)
        arm.run()
    commands = [tick.command for tick in arm.ticks[before:] if tick.command is not None]
    assert {command.source for command in commands} == {ControlSource.HUMAN}
    assert {command.gripper_asked for command in commands} == {(False,)}
    # Reported is the target that stands, or where the finger is measured: at 0.04 m, open.
    reported = [float(command.executed[-1]) for command in commands]
    assert reported == pytest.approx([-1.0 if commanded else 1.0] * len(commands))
    arm.executor.update_teleop(TcpTwist(np.zeros(3), gripper=-1.0), arm.now_ns)
    asked = arm.run().command
    assert asked is not None
    assert asked.gripper_asked == (True,)


def test_a_finger_target_that_is_no_number_is_no_wish_to_close(profile: Profile) -> None:
    assert np.isnan(gripper_action(profile.gripper, float("nan")))
    arm = DrivenArm(real_profile(profile))
    arm.executor.set_control_source(ControlSource.HUMAN, "leader arm")
    target = JointTarget(READY, gripper=gripper_action(profile.gripper, float("nan")))
    assert "gripper not in [-1, 1]" in arm.executor.update_teleop(target, arm.now_ns)


def test_a_hand_that_falls_silent_holds_the_arm(arm: DrivenArm) -> None:
    arm.executor.set_control_source(ControlSource.HUMAN, "gamepad")
    for _ in range(20):
        arm.executor.update_teleop(TcpTwist(np.array([0.1, 0.0, 0.05]), np.array([0.0, 0.0, 0.2])), arm.now_ns)
        arm.run()
    assert arm.mode == "human"
    # A twist of 0.1 m/s for 0.4 s, less what it takes to speed up.
    moved = arm.chain.forward(arm.commands[-1])[0] - arm.chain.forward(READY)[0]
    np.testing.assert_allclose(moved[[0, 2]], [0.04, 0.02], atol=0.01)
    arm.run(20)
    arm.rest()
    assert arm.mode == "holding"
    assert "no teleop command" in arm.executor.report.reason
    assert arm.violations() == {}


def test_a_hand_may_not_leave_the_limits(arm: DrivenArm) -> None:
    arm.executor.set_control_source(ControlSource.HUMAN, "gamepad")
    assert "7" in arm.executor.update_teleop(JointTarget(np.zeros(6)), arm.now_ns)
    assert "not finite" in arm.executor.update_teleop(JointTarget(np.full(7, np.nan)), arm.now_ns)
    for _ in range(150):
        arm.executor.update_teleop(TcpTwist(np.array([5.0, 0.0, -5.0])), arm.now_ns)
        arm.run()
    assert arm.violations() == {}


def test_hold_is_held_and_drops_chunks(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(50))
    arm.run(10)
    assert arm.executor.set_control_source(ControlSource.HOLD, "dashboard") == ""
    assert "control source is hold" in arm.chunk(arm.sweep(5))
    arm.rest()
    assert arm.mode == "holding"
    assert arm.violations() == {}


ACTS = st.sampled_from(
    ["chunk", "nan", "late", "silent", "stop", "clear", "engage", "human", "policy", "hold", "twist", "pause"]
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(ACTS, st.integers(1, 8)), min_size=3, max_size=25), st.integers(0, 1000))
def test_whatever_happens_limits_are_kept(profile: Profile, acts: list[tuple[str, int]], seed: int) -> None:
    arm, rng = DrivenArm(real_profile(profile)), np.random.default_rng(seed)
    arm.executor.begin("e")
    for act, periods in [("chunk", 5), *acts]:
        if act == "chunk":
            arm.chunk(
                np.hstack([arm.joints + rng.normal(0, 0.2, (20, 7)).cumsum(axis=0), np.zeros((20, 1))]), execute=8
            )
        elif act == "nan":
            arm.chunk(np.where(rng.random((20, 8)) < 0.1, np.nan, 1e30))
        elif act == "late":
            arm.chunk(arm.sweep(20), age=int(rng.integers(0, 300)))
        elif act == "stop":
            arm.executor.emergency_stop("test", "test")
        elif act == "clear":
            arm.executor.clear_emergency_stop("test")
        elif act == "engage":
            arm.executor.engage("test")
        elif act in ("human", "policy", "hold"):
            arm.executor.set_control_source(ControlSource[act.upper()], "test")
        elif act == "twist":
            arm.executor.update_teleop(TcpTwist(rng.normal(0, 1, 3), rng.normal(0, 1, 3)), arm.now_ns)
        elif act == "pause":
            arm.now_ns += periods * PERIOD_NS
        arm.run(periods, state=act != "silent")
    arm.executor.emergency_stop("end", "test")
    arm.rest(200)
    assert not arm.commands or arm.violations() == {}


def test_a_simulator_that_waits_does_not_run_ahead_of_a_person(profile: Profile) -> None:
    """A state is answered once, by a joint target for it; an arm that plays by time follows the newest."""
    arm = DrivenArm(replace(real_profile(profile), tick="joint_states"))
    arm.run()
    arm.executor.begin("e")
    arm.executor.set_control_source(ControlSource.HUMAN, "leader arm")
    for number in range(1, 4):
        target = JointTarget(READY - 0.01 * number)
        assert arm.executor.update_teleop(target, arm.now_ns, arm.stamp_ns + PERIOD_NS) == ""
        arm.run(3)
        assert len(arm.commands) == number, "two of three states wait for the person"
    assert (arm.commands[-1] < arm.commands[0]).all(), "it goes where the newest target is"
    timed = DrivenArm(real_profile(profile))
    timed.run()
    timed.executor.begin("e")
    timed.executor.set_control_source(ControlSource.HUMAN, "leader arm")
    timed.executor.update_teleop(JointTarget(READY - 0.01), timed.now_ns, timed.stamp_ns)
    timed.run(3)
    assert len(timed.commands) == 3
