"""Chains of any kind: joints about and along any axis, against scipy, finite differences and the same arm in z axes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pirl_ros.control.action_mapping import ActionMapper
from pirl_ros.control.governor import Governor
from pirl_ros.control.kinematics import Array, Chain, onto_z
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.control.rotations import vector
from pirl_ros.control.workspace import Workspace
from pirl_ros.profile.action_parts import ActionPart
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import Box, JointOrigin, KinematicTable, Origin
from pirl_ros.profile_check.findings import find_all

PARAMS = Path(__file__).parents[2] / "launch" / "params"
AXES = {
    "z": (0.0, 0.0, 1.0),
    "-z": (0.0, 0.0, -1.0),
    "x": (1.0, 0.0, 0.0),
    "-x": (-1.0, 0.0, 0.0),
    "y": (0.0, 1.0, 0.0),
    "-y": (0.0, -1.0, 0.0),
    "skewed": (0.3, -2.0, 0.7),
    "nearly -z": (1e-7, 0.0, -1.0),
}
SMALL = st.floats(-0.5, 0.5)
ANGLE = st.floats(-3.0, 3.0)


def shipped(name: str) -> Profile:
    return load_profile(PARAMS / f"{name}.yaml")


def limits_of(profile: Profile) -> tuple[Array, Array]:
    joints = profile.arm.joints
    return np.array([joint.low for joint in joints]), np.array([joint.high for joint in joints])


def expected_pose(table: KinematicTable, joints: Array) -> tuple[Array, Array]:
    """Position and rotation by scipy, frame by frame as the URDF reads; nothing of ours."""
    position, rotation = np.zeros(3), Rotation.identity()
    for origin, value in zip(table.joints, joints):
        position = position + rotation.apply(origin.xyz)
        rotation = rotation * Rotation.from_euler("xyz", origin.rpy)
        along = np.array(origin.axis) / np.linalg.norm(origin.axis)
        if origin.type == "prismatic":
            position = position + rotation.apply(value * along)
        else:
            rotation = rotation * Rotation.from_rotvec(value * along)
    position = position + rotation.apply(table.tool.xyz)
    return position, (rotation * Rotation.from_euler("xyz", table.tool.rpy)).as_matrix()


def rpy_of(rotation: Rotation) -> tuple[float, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of gimbal lock: any of the triples will do
        return tuple(rotation.as_euler("xyz"))


def rewritten(table: KinematicTable, axis: tuple[float, ...]) -> KinematicTable:
    """The same arm of z axes, with each joint's frame turned so that its axis reads `axis`."""
    along = np.array(axis) / np.linalg.norm(axis)
    turn = Rotation.align_vectors([[0.0, 0.0, 1.0]], [along])[0]
    joints, before = [], Rotation.identity()
    for origin in table.joints:
        rotation = before.inv() * Rotation.from_euler("xyz", origin.rpy) * turn
        joints.append(JointOrigin(tuple(before.inv().apply(origin.xyz)), rpy_of(rotation), axis))
        before = turn
    rpy = rpy_of(before.inv() * Rotation.from_euler("xyz", table.tool.rpy))
    tool = Origin(tuple(before.inv().apply(table.tool.xyz)), rpy)
    return replace(table, joints=tuple(joints), tool=tool)


def gantry(profile: Profile, at: int) -> Profile:
    """The arm with its joint number `at` replaced by one that slides along a skewed axis, 0.4 m."""
    joint = replace(profile.arm.joints[at], low=-0.1, high=0.3, velocity=0.5, acceleration=2.0, jerk=20.0)
    origin = replace(profile.kinematics.joints[at], axis=(0.0, 1.0, 1.0), type="prismatic")
    joints = [*profile.arm.joints[:at], joint, *profile.arm.joints[at + 1 :]]
    origins = [*profile.kinematics.joints[:at], origin, *profile.kinematics.joints[at + 1 :]]
    table = replace(profile.kinematics, joints=tuple(origins))
    return replace(profile, arm=replace(profile.arm, joints=tuple(joints)), kinematics=table)


@st.composite
def tables(draw: st.DrawFn) -> KinematicTable:
    joints = [
        JointOrigin(
            draw(st.tuples(SMALL, SMALL, SMALL)),
            draw(st.tuples(ANGLE, ANGLE, ANGLE)),
            draw(st.sampled_from(sorted(AXES.values()))),
            draw(st.sampled_from(["revolute", "continuous", "prismatic"])),
        )
        for _ in range(draw(st.integers(1, 8)))
    ]
    tool = Origin(draw(st.tuples(SMALL, SMALL, SMALL)), draw(st.tuples(ANGLE, ANGLE, ANGLE)))
    return KinematicTable(tuple(joints), tool)


@settings(deadline=None, max_examples=100)
@given(tables(), st.integers(0, 2**31))
def test_any_chain_is_where_scipy_says(table: KinematicTable, seed: int) -> None:
    joints = np.random.default_rng(seed).uniform(-2, 2, len(table.joints))
    position, rotation = Chain.from_table(table).forward(joints)
    expected_position, expected_rotation = expected_pose(table, joints)
    np.testing.assert_allclose(position, expected_position, atol=1e-9)
    np.testing.assert_allclose(rotation, expected_rotation, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(tables(), st.integers(0, 2**31))
def test_any_jacobian_agrees_with_finite_differences(table: KinematicTable, seed: int) -> None:
    chain, step = Chain.from_table(table), 1e-6
    joints = np.random.default_rng(seed).uniform(-2, 2, len(table.joints))
    jacobian, position, rotation = chain.jacobian(joints)
    for index, column in enumerate(jacobian.T):
        moved, turned = chain.forward(joints + step * np.eye(len(joints))[index])
        np.testing.assert_allclose((moved - position) / step, column[:3], atol=1e-5)
        np.testing.assert_allclose(vector(turned @ rotation.T) / step, column[3:], atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(tables(), st.integers(0, 2**31))
def test_an_inverse_reaches_its_pose_within_the_limits(table: KinematicTable, seed: int) -> None:
    """Whatever the chain: also of two joints, or with all axes parallel, where most poses cannot be reached."""
    chain, rng = Chain.from_table(table), np.random.default_rng(seed)
    low, high = np.full((2, len(table.joints)), [[-1.0], [1.5]])
    goal = rng.uniform(low, high)
    position, rotation = chain.forward(goal)
    found = chain.inverse(position, rotation, goal + rng.uniform(-0.3, 0.3, len(goal)), low, high)
    assert chain.inverse(position, rotation, goal, low, high) is not None
    if found is not None:
        assert ((found >= low) & (found <= high)).all()
        reached, turned = chain.forward(found)
        np.testing.assert_allclose(reached, position, atol=1e-5)
        np.testing.assert_allclose(vector(rotation @ turned.T), 0, atol=1e-4)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", ["franka", "ur5e"])
def test_an_arm_is_the_same_whatever_its_axes_are_called(name: str, axis: str) -> None:
    profile = shipped(name)
    chain, other = Chain.from_table(profile.kinematics), Chain.from_table(rewritten(profile.kinematics, AXES[axis]))
    low, high = limits_of(profile)
    rng = np.random.default_rng(1)
    for joints in rng.uniform(low, high, (20, len(low))):
        position, rotation = chain.forward(joints)
        np.testing.assert_allclose(other.forward(joints)[0], position, atol=1e-9)
        np.testing.assert_allclose(other.jacobian(joints)[0], chain.jacobian(joints)[0], atol=1e-9)
        found = other.inverse(position, rotation, np.clip(joints + 0.1, low, high), low, high)
        assert found is not None
        np.testing.assert_allclose(chain.forward(found)[0], position, atol=1e-5)


@pytest.mark.parametrize("at", [0, 1, 5])
def test_an_inverse_moves_a_joint_that_slides(at: int) -> None:
    profile = gantry(shipped("ur5e"), at)
    chain, (low, high) = Chain.from_table(profile.kinematics), limits_of(profile)
    rng, solved = np.random.default_rng(2), 0
    for joints in rng.uniform(low, high, (60, 6)):
        position, rotation = chain.forward(joints)
        start = np.clip(joints + rng.uniform(-0.1, 0.1, 6), low, high)
        found = chain.inverse(position, rotation, start, low, high)
        solved += found is not None
        assert found is None or np.abs(chain.forward(found)[0] - position).max() < 1e-4
    assert solved >= 57


@pytest.mark.parametrize(("name", "least"), [("franka", 98), ("ur5e", 99), ("panda_sim", 98)])
def test_poses_at_joint_limits_are_solved(name: str, least: int) -> None:
    """Three joints stand at a limit, of a hundred poses; with clipping alone the Pandas solve about sixty."""
    profile = shipped(name)
    chain, (low, high) = Chain.from_table(profile.kinematics), limits_of(profile)
    rng, solved = np.random.default_rng(5), 0
    for joints in rng.uniform(low, high, (100, len(low))):
        ends = rng.choice(len(low), 3, replace=False)
        joints[ends] = np.where(rng.random(3) < 0.5, low[ends], high[ends])
        position, rotation = chain.forward(joints)
        start = np.clip(joints + rng.uniform(-0.3, 0.3, len(low)), low, high)
        found = chain.inverse(position, rotation, start, low, high)
        solved += found is not None
        assert found is None or ((found >= low) & (found <= high)).all()
    assert solved >= least


def test_a_stretched_arm_is_not_thrown_about() -> None:
    """At full stretch, where the arm is singular: a goal 20 cm further out is out of reach, one 5 cm back is near."""
    profile = shipped("ur5e")
    chain, (low, high) = Chain.from_table(profile.kinematics), np.full((2, 6), [[-3.1], [3.1]])
    stretched = np.array([0.0, -0.5, 0.0, -1.0, -1.5, 0.0])
    position, rotation = chain.forward(stretched)
    outwards = position - [0.0, 0.0, 0.1625]
    outwards /= np.linalg.norm(outwards)
    assert chain.inverse(position + 0.2 * outwards, rotation, stretched, low, high) is None
    found = chain.inverse(position - 0.05 * outwards, rotation, stretched, low, high)
    assert found is not None
    assert np.abs(found - stretched).max() < 1.5


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1))
def test_a_half_turn_is_an_error_of_pi(axis: tuple[float, ...]) -> None:
    """Its matrix is symmetric, as that of no turn is: read alike, a tool turned the wrong way round would do."""
    along = np.array(axis) / np.linalg.norm(axis)
    found = vector(2 * np.outer(along, along) - np.eye(3))
    assert np.linalg.norm(found) == pytest.approx(np.pi)
    np.testing.assert_allclose(np.abs(found @ along), np.pi)


def test_a_tool_the_wrong_way_round_has_not_arrived() -> None:
    profile = shipped("franka")
    chain, (low, high) = Chain.from_table(profile.kinematics), limits_of(profile)
    joints = (low + high) / 2
    position, rotation = chain.forward(joints)
    wanted = rotation @ np.diag([-1.0, -1.0, 1.0])
    found = chain.inverse(position, wanted, joints, low, high)
    assert found is None or np.abs(chain.forward(found)[1] - wanted).max() < 1e-3


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
def test_z_is_turned_onto_the_axis(axis: tuple[float, ...]) -> None:
    turn = onto_z(np.array(axis))
    np.testing.assert_allclose(turn[:, 2], np.array(axis) / np.linalg.norm(axis), atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_z_axes_change_no_bit() -> None:
    """Of shipped profiles neither kinematics nor contract may depend on how an axis is written."""
    profile = shipped("franka")
    named = tuple(replace(joint, axis=(0.0, 0.0, 2.0), type="continuous") for joint in profile.kinematics.joints)
    other = replace(profile, kinematics=replace(profile.kinematics, joints=named))
    np.testing.assert_array_equal(
        Chain.from_table(profile.kinematics).origins, Chain.from_table(other.kinematics).origins
    )
    assert profile.contract.hash == other.contract.hash


@pytest.mark.parametrize("kind", ["joint_position", "joint_delta"])
def test_a_joint_that_slides_is_metres_in_the_contract(kind: str) -> None:
    contract = replace(gantry(shipped("franka"), 2), action=kind, velocities=True).contract
    units = {field.name: field.unit for field in (*contract.state, *contract.action)}
    sliding = {name: unit for name, unit in units.items() if name.startswith("fr3_joint3.")}
    assert list(sliding.values()) == ["m", "m/s", "m"]
    assert {unit for name, unit in units.items() if name.startswith("fr3_joint4.")} == {"rad", "rad/s"}


def test_a_joint_that_slides_catches_up_with_two_centimetres_and_not_ten() -> None:
    """0.1 rad of a wrist is a little, 0.1 m of a rail is not: what an arm that was slow was to do is not done later."""
    profile = gantry(shipped("franka"), 0)
    slow = replace(
        profile, action=(ActionPart("joint_velocity"), ActionPart("gripper")), tcp_step=0.0,
        safety=replace(profile.safety, speed_scale=0.02, workspace=Box((-9.0,) * 3, (9.0,) * 3)),
    )  # fmt: skip
    low, high = limits_of(slow)
    at = start = (low + high) / 2
    motion = ActionMapper(slow)
    for velocity, periods in ((0.5, 50), (0.0, 600)):
        for _ in range(periods):
            before = at
            action = np.array([velocity, *[0.0] * 6, 1.0], np.float32)
            joints = motion.step(action, at, 0.0, 0.0, at).joints
            assert joints is not None
            at = joints
        if velocity:
            turned_off = at[0]
    assert at[0] == before[0], "it stands"
    assert turned_off - start[0] > 0.01
    assert 0.01 < at[0] - turned_off < 0.025


@pytest.mark.parametrize(("velocity", "real"), [(0.5, True), (3.0, True), (6.0, False)])
def test_a_joint_that_slides_has_limits_of_its_own_kind(velocity: float, real: bool) -> None:
    """6 rad/s is a fast wrist, 6 m/s no rail at all: only a simulated arm may be driven with such a profile."""
    profile = gantry(shipped("franka"), 0)
    first, *others = profile.arm.joints
    joints = (replace(first, velocity=velocity), *others)
    fast = replace(profile, arm=replace(profile.arm, joints=joints))
    assert bool(fast.simulation_only) != real
    assert any("beyond any real arm" in finding.text for finding in find_all(fast)) != real
    turning = replace(shipped("franka"), arm=replace(profile.arm, joints=(replace(joints[0], velocity=6.0), *others)))
    assert not turning.simulation_only


@pytest.mark.parametrize("start", [0.3, 0.0])
def test_steps_below_the_tolerance_add_up(start: float) -> None:
    """A slow motion is many small steps: each is done, or it would be reported as done and never be."""
    profile = shipped("franka")
    chain, (low, high) = Chain.from_table(profile.kinematics), limits_of(profile)
    joints = np.clip(np.array([start, 0.4, 0.0, -2.0, 0.0, 2.4, 0.8]), low, high)
    position, rotation = chain.forward(joints)
    way, turn = np.array([4e-6, 0.0, -4e-6]), Rotation.from_rotvec([0.0, 0.0, 4e-5])
    for step in range(1, 501):
        at, facing = chain.forward(joints)
        reached = chain.inverse(at + way, turn.as_matrix() @ facing, joints, low, high)
        assert reached is not None, step
        joints = reached
    end, turned = chain.forward(joints)
    np.testing.assert_allclose(end - position, 500 * way, atol=2e-5)
    expected = Rotation.from_rotvec([0.0, 0.0, 500 * 4e-5])
    np.testing.assert_allclose((Rotation.from_matrix(turned @ rotation.T) * expected.inv()).as_rotvec(), 0, atol=2e-4)


def test_the_pose_of_the_start_is_reached_by_the_start_itself() -> None:
    profile = shipped("franka")
    chain, (low, high) = Chain.from_table(profile.kinematics), limits_of(profile)
    joints = np.array([0.3, 0.4, 0.0, -2.0, 0.0, 2.4, 0.8])
    np.testing.assert_array_equal(chain.inverse(*chain.forward(joints), joints, low, high), joints)


@pytest.mark.parametrize(
    ("axis", "message"), [((0.0, 0.0, 0.0), "has no direction"), ((1.0, 0.0), "axis needs three numbers")]
)
def test_an_axis_that_is_none_is_rejected(axis: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JointOrigin((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), axis)


@pytest.mark.parametrize("at", [0, 3, 5])
def test_the_workspace_knows_joints_that_slide(at: int) -> None:
    """Where the tool is, and the bound by which a whole path is inside: no point of it may be outside."""
    profile = gantry(shipped("ur5e"), at)
    chain, (low, high) = Chain.from_table(profile.kinematics), limits_of(profile)
    rng, inside = np.random.default_rng(6), 0
    for middle in rng.uniform(low, high, (300, 6)):
        tool = chain.forward(middle)[0]
        workspace = Workspace(tool - rng.uniform(0.01, 0.1, 3), tool + rng.uniform(0.01, 0.1, 3), chain)
        np.testing.assert_allclose(workspace.tool(middle), tool, atol=1e-12)
        path = middle + rng.uniform(-1, 1, 6) * rng.choice([0.01, 0.03, 0.1]) * np.linspace(0, 1, 8)[:, None]
        tools = np.array([chain.forward(joints)[0] for joints in path])
        expected = bool(((tools >= workspace.low) & (tools <= workspace.high)).all())
        assert workspace.holds(path) == expected
        inside += expected
        goal = workspace.before(middle, path[-1])
        assert workspace.depth(goal) >= -1e-12
    assert 60 <= inside <= 240


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([0, 3, 5]), st.integers(0, 2**31))
def test_no_target_makes_a_gantry_break_a_limit(at: int, seed: int) -> None:
    profile, rng = gantry(shipped("ur5e"), at), np.random.default_rng(seed)
    chain, (low, high) = Chain.from_table(profile.kinematics), limits_of(profile)
    start = rng.uniform(low, high)
    tool = chain.forward(start)[0]
    box = Box(tuple(tool - np.array([0.1, 0.2, 0.05])), tuple(tool + np.array([0.2, 0.1, 0.05])))
    profile = replace(profile, safety=replace(profile.safety, workspace=box, max_jump=10.0))
    limits = Limits.from_profile(profile)
    governor, commands = Governor(limits, chain), [start]
    for _ in range(12):
        target = rng.uniform(low - 0.2, high + 0.2)
        for _ in range(8):
            joints, _altered = governor.command(target, commands[-1], 0.0, 0.0)
            assert joints is not None
            commands.append(joints)
    assert violations(np.array(commands), limits, chain) == {}
    assert np.abs(np.diff(np.array(commands)[:, at])).max() > 0, "the joint that slides never moved"
