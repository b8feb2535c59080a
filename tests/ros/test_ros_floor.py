"""The floor: no moving joint of the arm gets below it, whatever is asked, and an arm without one costs nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_contract.schema import Alteration
from pirl_ros.control.floor import Floor
from pirl_ros.control.governor import Governor
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.control.workspace import Workspace
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import Box

PARAMS = Path(__file__).parents[2] / "launch" / "params"
WIDE = Box((-20.0, -20.0, -20.0), (20.0, 20.0, 20.0))


def shipped(name: str, **safety: object) -> Profile:
    profile = load_profile(PARAMS / f"{name}.yaml")
    return replace(profile, safety=replace(profile.safety, max_jump=10.0, **safety))


def chain_of(profile: Profile) -> Chain:
    return Chain.from_table(profile.kinematics)


def limits_of(profile: Profile) -> tuple[Array, Array]:
    joints = profile.arm.joints
    return np.array([joint.low for joint in joints]), np.array([joint.high for joint in joints])


def lifted(profile: Profile, at: int) -> Profile:
    """The arm with joint `at` sliding."""
    origins = list(profile.kinematics.joints)
    origins[at] = replace(origins[at], axis=(0.0, 1.0, 1.0), type="prismatic")
    return replace(profile, kinematics=replace(profile.kinematics, joints=tuple(origins)))


@pytest.mark.parametrize("name", ["franka", "ur5e", "koch", "openarm"])
@pytest.mark.parametrize("slide", [None, 0, 2])
def test_the_lowest_joint_is_where_the_frames_are(name: str, slide: int | None) -> None:
    profile = shipped(name) if slide is None else lifted(shipped(name), slide)
    chain, (low, high) = chain_of(profile), limits_of(profile)
    path = np.random.default_rng(0).uniform(low, high, (50, len(low)))
    places = np.array([chain.places(joints) for joints in path])
    moving = np.ptp(places, axis=0).max(axis=1) > 1e-9
    assert 0 < moving.sum() < len(low)
    lowest = places[:, moving, 2].min(axis=1)
    floor = Floor(0.1, chain)
    np.testing.assert_allclose([floor.clearance(joints) for joints in path], lowest - 0.1, atol=1e-12)
    assert Floor(float(lowest.min()) - 1e-9, chain).holds(path)
    assert not Floor(float(lowest.min()) + 1e-9, chain).holds(path)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["franka", "ur5e"]), st.sampled_from([None, 1, 3]), st.integers(0, 2**31))
def test_no_target_brings_a_joint_below_the_floor(name: str, slide: int | None, seed: int) -> None:
    profile = shipped(name, workspace=WIDE) if slide is None else lifted(shipped(name, workspace=WIDE), slide)
    chain, (low, high), rng = chain_of(profile), limits_of(profile), np.random.default_rng(seed)
    start = rng.uniform(low, high)
    floor = Floor(0.0, chain).clearance(start) - 0.02
    limits = replace(Limits.from_profile(profile), floor=floor)
    governor, commands = Governor(limits, chain), [start]
    for _ in range(10):
        target = rng.uniform(low, high)
        for _ in range(8):
            joints, _altered = governor.command(target, commands[-1], 0.0, 0.0)
            assert joints is not None
            commands.append(joints)
    assert violations(np.array(commands), limits, chain) == {}


def test_an_elbow_on_its_way_through_the_table_is_stopped() -> None:
    """The tool stays high above: the box alone lets the elbow through, and the checker sees that it does."""
    start = np.array([0.0, -1.2, 0.8, -1.57, -1.57, 0.0])
    goal = np.array([0.0, -0.0, 2.6, -1.57, -1.57, 0.0])
    reached = {}
    for floor in (-np.inf, 0.2):
        profile = shipped("ur5e", workspace=WIDE)
        limits = replace(Limits.from_profile(profile), floor=floor)
        governor, joints, commands, seen = Governor(limits, chain_of(profile)), start, [start], Alteration.NONE
        for _ in range(200):
            found, altered = governor.command(goal, joints, 0.0, 0.0)
            assert found is not None
            joints, seen = found, seen | altered
            commands.append(joints)
        reached[floor] = joints
        assert (Alteration.WORKSPACE in seen) == (floor == 0.2)
        assert violations(np.array(commands), limits, chain_of(profile)) == {}
        beyond = violations(np.array(commands), replace(limits, floor=0.2), chain_of(profile))
        assert (beyond == {}) == (floor == 0.2)
    elbow = {floor: chain_of(shipped("ur5e")).places(joints)[2, 2] for floor, joints in reached.items()}
    assert elbow[-np.inf] < 0.17
    assert elbow[0.2] >= 0.2


def test_an_arm_that_stands_below_its_floor_is_not_started() -> None:
    profile = shipped("ur5e", workspace=WIDE, floor=0.5)
    chain, joints = chain_of(profile), np.array([0.0, -0.3, 0.5, -1.57, -1.57, 0.0])
    governor = Governor(Limits.from_profile(profile), chain)
    assert governor.command(joints, joints, 0.0, 0.0) == (None, Alteration.WORKSPACE)


def test_the_base_may_stand_below_the_floor() -> None:
    """Joints that nothing moves, 16 cm above the foot of a UR5e, are not counted."""
    profile = shipped("ur5e", workspace=WIDE, floor=0.3)
    upright = np.array([0.0, -1.57, 0.1, -1.57, -1.57, 0.0])
    joints, _ = Governor(Limits.from_profile(profile), chain_of(profile)).command(upright, upright, 0.0, 0.0)
    assert joints is not None


def test_a_floor_is_read_from_the_profile_and_none_is_the_default(tmp_path: Path) -> None:
    text = (PARAMS / "ur5e.yaml").read_text()
    assert Limits.from_profile(load_profile(PARAMS / "ur5e.yaml")).floor == -np.inf
    (tmp_path / "arm.yaml").write_text(text.replace("  speed_scale: 0.5", "  speed_scale: 0.5\n  floor: 0.08"))
    profile = load_profile(tmp_path / "arm.yaml")
    assert Limits.from_profile(profile).floor == 0.08
    assert profile.contract.hash == load_profile(PARAMS / "ur5e.yaml").contract.hash
    with pytest.raises(ValueError, match="height in metres, or -inf, got nan"):
        replace(Limits.from_profile(profile), floor=float("nan"))


def test_a_workspace_without_a_floor_knows_none() -> None:
    profile = shipped("ur5e")
    low, high = np.array(WIDE.low), np.array(WIDE.high)
    joints = np.array([0.0, 0.0, 0.1, -1.57, -1.57, 0.0])
    assert Workspace(low, high, chain_of(profile)).holds(joints[None])
    assert not Workspace(low, high, chain_of(profile), floor=0.3).holds(joints[None])
