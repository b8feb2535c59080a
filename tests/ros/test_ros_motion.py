"""One action into one command: what the arm is told and what is reported about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pirl_contract import Alteration, ControlSource
from pirl_ros.control.action_mapping import ActionMapper
from pirl_ros.control.gripper import gripper_action, gripper_metres
from pirl_ros.control.kinematics import Chain
from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import Box

READY = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4])
ANY_ACTION = hnp.arrays(np.float32, 4, elements=st.floats(width=32, allow_nan=True, allow_infinity=True))


def action(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@given(st.floats(-1, 1, width=32))
def test_gripper_there_and_back(profile: Profile, opening: float) -> None:
    metres = gripper_metres(profile.gripper, opening)
    assert -0.01 <= metres <= 0.04
    assert gripper_action(profile.gripper, metres) == pytest.approx(opening, abs=1e-12)
    assert gripper_action(profile.gripper, float(np.float32(metres))) == pytest.approx(opening, abs=1e-6)


def test_gripper_ends(profile: Profile) -> None:
    assert gripper_metres(profile.gripper, -1.0) == pytest.approx(-0.01)
    assert gripper_metres(profile.gripper, 1.0) == pytest.approx(0.04)


def test_an_ordinary_action_moves_the_tool_by_it(profile: Profile) -> None:
    command = ActionMapper(profile).step(action(0.02, -0.03, 0.01, 0.5), READY, 0.0, 0.0)
    assert command.alterations == Alteration.NONE
    assert command.source == ControlSource.POLICY
    np.testing.assert_array_equal(command.executed, action(0.02, -0.03, 0.01, 0.5))
    assert command.joints is not None
    chain = Chain.from_table(profile.kinematics)
    position, rotation = chain.forward(READY)
    reached, turned = chain.forward(command.joints)
    np.testing.assert_allclose(reached - position, [0.02, -0.03, 0.01], atol=1e-4)
    np.testing.assert_allclose(turned, rotation, atol=1e-3)


def test_beyond_the_range_is_clipped_and_only_that(profile: Profile) -> None:
    command = ActionMapper(profile).step(action(0.0, 0.0, 0.3, -7.0), READY, 0.0, 0.0)
    assert command.alterations == Alteration.CLIPPED
    np.testing.assert_array_equal(command.executed, action(0.0, 0.0, 0.1, -1.0))


def test_what_the_governor_shortens_is_reported_as_it_was_done(profile: Profile) -> None:
    motion, chain = ActionMapper(profile), Chain.from_table(profile.kinematics)
    stretched = np.array([0.0, 1.5, 0.0, -0.3, 0.0, 1.8, 0.8])
    command = motion.step(action(0.1, 0.1, -0.1, 0.0), stretched, 0.0, 0.0)
    assert command.alterations & (Alteration.LIMIT | Alteration.JUMP)
    assert command.joints is not None
    moved = chain.forward(command.joints)[0] - chain.forward(stretched)[0]
    np.testing.assert_allclose(command.executed[:3], moved, atol=1e-6)


def test_unfit_actions_hold_with_the_gripper_as_it_was(profile: Profile) -> None:
    motion = ActionMapper(profile)
    first = motion.step(action(0.01, 0, 0, -0.5), READY, 0.0, 0.0)
    for bad, age, bit in (
        (action(np.nan, 0, 0, 1), 0.0, Alteration.NOT_FINITE),
        (action(0, 0, 0, 1), 99.0, Alteration.STALE),
    ):
        held = motion.step(bad, READY, age, 0.0)
        assert held.alterations & bit
        assert held.source == ControlSource.HOLD
        np.testing.assert_array_equal(held.joints, first.joints)
        np.testing.assert_array_equal(held.executed, action(0, 0, 0, -0.5))


def test_nothing_is_sent_when_the_first_action_is_unfit(profile: Profile) -> None:
    assert ActionMapper(profile).step(action(np.inf, 0, 0, 0), READY, 0.0, 0.0).joints is None


@settings(deadline=None, max_examples=60)
@given(st.lists(ANY_ACTION, min_size=1, max_size=4))
def test_whatever_the_policy_says_commands_keep_the_limits(profile: Profile, actions: list[np.ndarray]) -> None:
    motion, measured = ActionMapper(profile), READY
    low = np.array([joint.low for joint in profile.arm.joints])
    high = np.array([joint.high for joint in profile.arm.joints])
    for each in actions:
        command = motion.step(each, measured, 0.0, 0.0)
        assert np.isfinite(command.executed).all()
        assert -0.01 <= command.gripper_m <= 0.04
        if command.joints is not None:
            assert (command.joints >= low).all()
            assert (command.joints <= high).all()
            measured = command.joints


def test_a_goal_behind_a_wall_of_the_workspace_is_moved_onto_it(profile: Profile) -> None:
    chain = Chain.from_table(profile.kinematics)
    tool = chain.forward(READY)[0]
    box = Box(tuple(tool - 0.2), tuple(tool + np.array([0.01, 0.2, 0.2])))
    walled = replace(profile, safety=replace(profile.safety, workspace=box))
    command = ActionMapper(walled).step(action(0.03, 0.02, 0, 0), READY, 0.0, 0.0)
    assert command.alterations & Alteration.WORKSPACE
    assert command.joints is not None
    moved = chain.forward(command.joints)[0] - tool
    np.testing.assert_allclose(moved, [0.01, 0.02, 0.0], atol=2e-3)
    assert moved[0] <= 0.01
    np.testing.assert_allclose(command.executed[:3], moved, atol=1e-6)


def by_joints(profile: Profile, kind: str) -> ActionMapper:
    return ActionMapper(replace(profile, action=kind, tcp_step=0.0))  # type: ignore[arg-type]


def test_joint_positions_are_played_as_they_are(profile: Profile) -> None:
    target = np.append(READY + 0.05, 0.5).astype(np.float32)
    command = by_joints(profile, "joint_position").step(target, READY, 0.0, 0.0)
    assert command.alterations == Alteration.NONE
    np.testing.assert_array_equal(command.joints, target[:-1].astype(np.float64))
    np.testing.assert_array_equal(command.executed, target)


def test_joint_positions_beyond_a_limit_are_clipped_and_reported_as_done(profile: Profile) -> None:
    motion = by_joints(profile, "joint_position")
    near = READY.copy()
    near[0] = 2.8
    command = motion.step(np.append(near, 0.0).astype(np.float32) + np.float32(0.2), near, 0.0, 0.0)
    assert command.alterations == Alteration.CLIPPED
    assert command.joints is not None
    assert command.joints[0] == pytest.approx(2.8973, abs=1e-6)
    assert command.joints[0] <= 2.8973


def test_joint_deltas_start_at_the_joints_the_chunk_was_made_for(profile: Profile) -> None:
    motion = by_joints(profile, "joint_delta")
    delta = np.append(np.full(7, 0.04), 1.0).astype(np.float32)
    command = motion.step(delta, READY + 0.02, 0.0, 0.0, reference=READY)
    assert command.joints is not None
    np.testing.assert_allclose(command.joints, READY + 0.04, atol=1e-7)
    np.testing.assert_allclose(command.executed, delta, atol=1e-6)
    far = motion.step(delta, READY + 1.5, 0.0, 0.0, reference=READY)
    assert far.alterations & Alteration.JUMP
    assert far.joints is not None
    np.testing.assert_allclose(far.executed[:-1], far.joints - READY, atol=1e-6)


@pytest.mark.parametrize("kind", ["joint_position", "joint_delta"])
def test_what_brakes_is_reported_in_the_units_of_the_action(profile: Profile, kind: str) -> None:
    motion = by_joints(profile, kind)
    motion.step(np.append(READY * (kind == "joint_position"), 0.0).astype(np.float32), READY, 0.0, 0.0)
    held = motion.brake(Alteration.EMERGENCY_STOP)
    assert (held.source, held.alterations) == (ControlSource.HOLD, Alteration.EMERGENCY_STOP)
    np.testing.assert_allclose(held.executed[:-1], READY if kind == "joint_position" else 0.0, atol=1e-6)
