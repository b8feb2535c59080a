"""Joint states of several drivers on one topic: found by name, whichever message has them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from pirl_ros.adapters.sensor_streams import SensorStreams
from pirl_ros.profile.profile import Profile
from pirl_ros.sensing.joint_parts import JointAssembler
from pirl_ros.sensing.sensor_messages import joints_by_name

ARM, FINGERS, WHEELS = ("a", "b"), ("f", "g"), ("left_wheel", "right_wheel")
MS = 1_000_000


def joints(names: Any, *positions: float, velocity: float | None = 0.5) -> Message:
    moving = [] if velocity is None else [velocity] * len(names)
    return Message(name=list(names), position=list(positions), velocity=moving)


@pytest.fixture
def assembler() -> JointAssembler:
    return JointAssembler(ARM, FINGERS, max_age_s=0.5)


def test_a_message_with_every_joint_is_taken_as_it_is(assembler: JointAssembler) -> None:
    whole = joints((*WHEELS, *FINGERS, *ARM), *range(6))
    arrival = assembler.take(whole, 7, 9)
    assert arrival is not None
    assert (arrival.message, arrival.stamp_ns, arrival.received_ns) == (whole, 7, 9)


def test_arm_and_gripper_apart_are_one_state_at_the_arm_s_rate(assembler: JointAssembler) -> None:
    assert assembler.take(joints(ARM, 1.0, 2.0), 10 * MS, 11 * MS) is None
    assert assembler.lacking(11 * MS) == "joint state lacks f, g; it has a, b"
    assert assembler.take(joints(FINGERS, 0.1, 0.2), 12 * MS, 13 * MS) is None, "the gripper gives no time of its own"
    arrival = assembler.take(joints(ARM, 3.0, 4.0), 20 * MS, 21 * MS)
    assert arrival is not None
    positions, velocities = joints_by_name(arrival.message, [*ARM, *FINGERS])
    np.testing.assert_allclose(positions, [3.0, 4.0, 0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(velocities, 0.5)
    assert (arrival.stamp_ns, arrival.received_ns) == (20 * MS, 21 * MS)
    assert assembler.lacking(21 * MS) == ""


def test_a_message_without_any_of_ours_changes_nothing(assembler: JointAssembler) -> None:
    assembler.take(joints(FINGERS, 0.1, 0.2), 0, 0)
    before = assembler.take(joints(ARM, 1.0, 2.0), 1, 1)
    assert assembler.take(joints(WHEELS, 5.0, 6.0), 2, 2) is None
    assert assembler.take(joints(ARM, 1.0, 2.0), 1, 1) == before


def test_two_halves_of_an_arm_are_as_old_as_the_older(assembler: JointAssembler) -> None:
    assembler.take(joints(FINGERS, 0.1, 0.2), 0, 0)
    assembler.take(joints(("a",), 1.0), 10, 11)
    arrival = assembler.take(joints(("b",), 2.0), 20, 21)
    assert arrival is not None
    assert (arrival.stamp_ns, arrival.received_ns) == (10, 11)


def test_a_gripper_that_fell_silent_is_not_held_for_ever(assembler: JointAssembler) -> None:
    assembler.take(joints(FINGERS, 0.1, 0.2), 0, 0)
    assert assembler.take(joints(ARM, 1.0, 2.0), 0, 400 * MS) is not None
    assert assembler.take(joints(ARM, 1.0, 2.0), 0, 600 * MS) is None
    assert "lacks f, g" in assembler.lacking(600 * MS)
    assembler.clear()
    assert assembler.lacking(600 * MS) == ""


def test_one_part_without_velocities_leaves_none(assembler: JointAssembler) -> None:
    assembler.take(joints(FINGERS, 0.1, 0.2, velocity=None), 0, 0)
    arrival = assembler.take(joints(ARM, 1.0, 2.0), 1, 1)
    assert arrival is not None
    assert joints_by_name(arrival.message, ["a"], velocities=False)[0].tolist() == [1.0]
    with pytest.raises(ValueError, match="one velocity per name"):
        joints_by_name(arrival.message, ["a"])


@pytest.mark.parametrize("gripper_topic", ["", "joint_states", "hand/joint_states"])
def test_the_streams_of_a_robot_find_their_joints(probe: Any, profile: Profile, gripper_topic: str) -> None:
    """Fingers with the arm's messages, on its topic apart, and on a topic that wheels share."""
    robot = replace(profile, gripper=replace(profile.gripper, joint_states=gripper_topic), poses=())
    streams = SensorStreams(probe.node, robot, False, lambda: None)
    arm, fingers = ([joint.name for joint in part.joints] for part in (robot.arm, robot.gripper))
    hand = gripper_topic or "joint_states"
    publishers = {topic: probe.publisher(JointState, topic) for topic in {"joint_states", hand}}
    turns = itertools.cycle([("joint_states", arm), (hand, fingers), (hand, list(WHEELS))])

    def publish(topic: str, names: list[str]) -> None:
        message = JointState(name=names, position=[0.0] * len(names), velocity=[0.0] * len(names))
        message.header.stamp = probe.node.get_clock().now().to_msg()
        publishers[topic].publish(message)

    def whole() -> bool:
        publish(*next(turns))
        return streams.newest()[0] is not None

    probe.until(whole, "a whole observation")
    bundle, reason = streams.newest()
    assert bundle is not None, reason
    streams.clear()
    publish("joint_states", list(WHEELS))
    probe.until(lambda: f"lacks {', '.join(arm[:2])}" in streams.newest()[1], "the arm's joints to be named")
