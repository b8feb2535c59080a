"""Hands: a pad becomes a twist only while its deadman is pressed, and silence is no command."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pirl_contract import ControlSource
from pirl_ros.control.control_source import ControlSourceMux, JointTarget, Joystick, TcpTwist, stale, wrong_frame

PAD = Joystick(axes=(0, 1, 2), turns=(3,), deadman=0, close=1, open=2, speed=0.2, turn_speed=0.5, dead_zone=0.1)
SECOND = 1_000_000_000


def read(axes: list[float], buttons: list[int]) -> TcpTwist:
    twist = PAD.read(axes, buttons)
    assert twist is not None
    return twist


def test_without_the_deadman_there_is_no_command() -> None:
    assert PAD.read([1, 1, 1, 1], [0, 1, 1]) is None


def test_axes_become_a_twist_in_metres_and_radians() -> None:
    twist = read([1.0, -1.0, 0.05, 0.55], [1, 0, 0])
    np.testing.assert_allclose(twist.linear, [0.2, -0.2, 0.0])
    np.testing.assert_allclose(twist.angular, [0.25, 0.0, 0.0])
    assert twist.gripper is None


def test_buttons_close_and_open() -> None:
    assert read([0] * 4, [1, 1, 0]).gripper == -1.0
    assert read([0] * 4, [1, 0, 1]).gripper == 1.0


@pytest.mark.parametrize(("axes", "buttons"), [([0.0], [1, 0, 0]), ([0.0] * 4, [1])])
def test_a_pad_that_lacks_what_is_named_is_no_command(axes: list[float], buttons: list[int]) -> None:
    assert PAD.read(axes, buttons) is None


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=4, max_size=4))
def test_no_pad_makes_it_faster_than_full(axes: list[float]) -> None:
    twist = read(axes, [1, 0, 0])
    assert np.isfinite(twist.linear).all()
    assert (np.abs(twist.linear) <= 0.2).all()
    assert (np.abs(twist.angular) <= 0.5).all()


def test_a_hand_is_heard_only_while_it_drives_and_only_for_a_while() -> None:
    takeover, target = ControlSourceMux(timeout_s=0.2), JointTarget(np.zeros(7))
    assert "control source is policy" in takeover.update_teleop(target, 0)
    assert takeover.set_control_source(ControlSource.HUMAN)
    assert not takeover.set_control_source(ControlSource.HUMAN), "no change"
    assert takeover.latest_teleop(0) is None
    assert takeover.update_teleop(target, SECOND) == ""
    assert takeover.latest_teleop(SECOND + SECOND // 5) is target
    assert takeover.latest_teleop(SECOND + SECOND // 5 + 1) is None


def test_a_joint_target_answers_states_up_to_its_stamp_and_a_twist_all() -> None:
    takeover = ControlSourceMux()
    takeover.set_control_source(ControlSource.HUMAN)
    assert takeover.answered(5), "nothing that would be too old"
    takeover.update_teleop(JointTarget(np.zeros(7)), 0, stamp_ns=5)
    assert [takeover.answered(stamp) for stamp in (4, 5, 6)] == [True, True, False]
    takeover.update_teleop(TcpTwist(np.zeros(3)), 0, stamp_ns=5)
    assert takeover.answered(6)


def test_what_was_said_before_a_change_of_hands_is_forgotten() -> None:
    takeover = ControlSourceMux()
    takeover.set_control_source(ControlSource.HUMAN)
    takeover.update_teleop(JointTarget(np.zeros(7)), 0)
    takeover.set_control_source(ControlSource.POLICY)
    takeover.set_control_source(ControlSource.HUMAN)
    assert takeover.latest_teleop(0) is None


@pytest.mark.parametrize(
    "command",
    [
        JointTarget(np.array([np.nan])),
        JointTarget(np.zeros(7), gripper=2.0),
        JointTarget(np.zeros(7), gripper=float("nan")),
        TcpTwist(np.array([np.inf, 0, 0])),
        TcpTwist(np.zeros(3), np.array([0, np.nan, 0])),
    ],
)
def test_commands_that_are_no_numbers_are_dropped_in_words(command: JointTarget | TcpTwist) -> None:
    takeover = ControlSourceMux()
    takeover.set_control_source(ControlSource.HUMAN)
    assert "not finite" in takeover.update_teleop(command, 0)
    assert takeover.latest_teleop(0) is None


@pytest.mark.parametrize(
    ("stamp_s", "words"),
    [
        (10.0, ""),
        (9.75, ""),
        (10.25, ""),
        (9.7, "0.30 s before this node's time, the limit is 0.25 s: synchronise"),
        (10.3, "0.30 s after this node's time"),
        (0.0, "no stamp: set header.stamp"),
    ],
)
def test_a_command_must_be_of_the_present(stamp_s: float, words: str) -> None:
    said = stale(int(stamp_s * SECOND), 10 * SECOND, 0.25)
    assert words in said
    assert bool(said) is bool(words)


def test_before_a_simulation_has_begun_no_time_has_passed() -> None:
    assert stale(0, 0, 0.25) == ""
    assert "after" in stale(10 * SECOND, 0, 0.25)


def test_a_twist_is_followed_in_the_base_frame_only() -> None:
    assert wrong_frame("", "base_link") == wrong_frame("base_link", "base_link") == wrong_frame("", "") == ""
    assert "frame 'tool0', and only the base frame 'base_link'" in wrong_frame("tool0", "base_link")
    assert "name the profile's base frame in kinematics.frame" in wrong_frame("base_link", "")
