"""`pirl robot from-urdf`: what of a URDF becomes a profile, and what is rejected, each with its fix."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import patient
from scipy.spatial.transform import Rotation

from pirl_ros.control.kinematics import Chain
from pirl_ros.description.arm import Arm, find_arm
from pirl_ros.description.joint_limits import StatedLimits, read_joint_limits
from pirl_ros.description.profile_text import profile_text
from pirl_ros.description.source_text import description_text
from pirl_ros.description.urdf import read_urdf
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile_check.check import main

LIMIT = '<limit lower="-1" upper="2" velocity="1.5" effort="9"/>'


def joint(
    name: str,
    parent: str,
    child: str,
    kind: str = "revolute",
    inside: str = LIMIT,
    axis: str = "0 1 0",
    at: str = "0 0 0.1",
) -> str:
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{at}"/><axis xyz="{axis}"/>{inside}</joint>'
    )


def robot(*joints: str, more: str = "") -> str:
    links = dict.fromkeys(part.split('"')[0] for each in joints for part in each.split('link="')[1:])
    return f'<robot name="toy">{"".join(f"""<link name="{link}"/>""" for link in links)}{"".join(joints)}{more}</robot>'


ARM = (
    joint("j1", "base", "l1", axis="0 0 1"),
    joint("mount", "l1", "m1", "fixed", inside="", at="0 0.1 0"),
    joint("j2", "m1", "l2"),
    joint("j3", "l2", "l3", axis="1 0 0"),
    joint("tool", "l3", "tcp", "fixed", inside=""),
)
TOY = robot(
    *ARM, joint("finger", "l3", "pad", "prismatic", '<limit lower="0" upper="0.05" velocity="0.1" effort="9"/>')
)


def arm_of(text: str, tip: str | None = "tcp", **options: Any) -> Arm:
    chosen = {"base": None, "gripper": (), "limits": {}} | options
    return find_arm(read_urdf(text), tip, **chosen)


def profile_from(arm: Arm, folder: Path) -> Profile:
    path = folder / "toy.yaml"
    path.write_text(profile_text(arm, "toy.urdf", "toy", 20.0))
    return load_profile(path)


def test_what_the_file_says_is_in_the_profile(tmp_path: Path) -> None:
    profile = profile_from(arm_of(TOY), tmp_path)
    assert [each.name for each in profile.arm.joints] == ["j1", "j2", "j3"]
    assert [each.axis for each in profile.kinematics.joints] == [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)]
    assert profile.kinematics.joints[1].xyz == (0.0, 0.1, 0.1)
    assert profile.kinematics.frame == "base"
    assert {(each.low, each.high, each.velocity) for each in profile.arm.joints} == {(-1.0, 2.0, 1.5)}
    gripper = profile.gripper
    assert (gripper.command_joint, gripper.unit, gripper.closed, gripper.open) == ("finger", "m", 0.0, 0.05)
    assert (profile.arm.checked, profile.gripper.checked, profile.kinematics.checked) == (False, False, False)


def test_joints_are_in_the_order_of_the_chain_whatever_the_files_order() -> None:
    shuffled = robot(*reversed(ARM))
    assert [each.name for each in arm_of(shuffled).joints] == ["j1", "j2", "j3"]


def test_a_part_of_the_tree_is_an_arm() -> None:
    arm = arm_of(TOY, base="l1", tip="l3")
    assert ([each.name for each in arm.joints], arm.kinematics.frame, arm.folded) == (["j2", "j3"], "l1", 1)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.tuples(st.tuples(*[st.floats(-1, 1)] * 3), st.sampled_from([0, 0.3, -1.5707963267948966, math.pi / 2, 3])),
        max_size=5,
    )
)
def test_fixed_joints_are_folded_exactly(steps: list[tuple[tuple[float, float, float], float]]) -> None:
    """Also where pitches add up to 90 degrees, where roll and yaw cannot be told apart."""
    fixed = [
        joint(f"f{index}", f"k{index}", f"k{index + 1}", "fixed", inside="").replace(
            '<origin xyz="0 0 0.1"/>', f'<origin xyz="{x} {y} {z}" rpy="{x} {pitch} {z}"/>'
        )
        for index, ((x, y, z), pitch) in enumerate(steps)
    ]
    text = robot(joint("j1", "base", "k0"), *fixed, joint("j2", f"k{len(steps)}", "tcp"))
    position, rotation = np.array([0.0, 0.0, 0.1]), Rotation.from_rotvec([0.0, 0.5, 0.0])
    for (x, y, z), pitch in steps:
        position = position + rotation.apply([x, y, z])
        rotation = rotation * Rotation.from_euler("xyz", [x, pitch, z])
    position = position + rotation.apply([0.0, 0.0, 0.1])
    rotation = rotation * Rotation.from_rotvec([0.0, -0.4, 0.0])
    found = Chain.from_table(arm_of(text).kinematics).forward(np.array([0.5, -0.4]))
    np.testing.assert_allclose(found[0], position, atol=1e-9)
    np.testing.assert_allclose(found[1], rotation.as_matrix(), atol=1e-9)


def test_no_number_is_lost_in_the_file(tmp_path: Path) -> None:
    """1e-5 as Python writes it is text in YAML 1.1."""
    text = TOY.replace('xyz="0 0.1 0"', 'xyz="1e-5 0.123456789012 -3e-11"')
    arm = arm_of(text)
    profile = profile_from(arm, tmp_path)
    np.testing.assert_allclose(profile.kinematics.joints[1].xyz, arm.kinematics.joints[1].xyz, atol=1e-12)


NAMES = st.text(
    st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.sampled_from("\n\r\u2028"), min_size=1, max_size=9
)


@settings(deadline=None, max_examples=60)
@given(NAMES)
def test_any_name_comes_back_from_the_file(name: str) -> None:
    """Also one that YAML would read as another type, or that a line break would carry out of a comment."""
    arm = arm_of(TOY)
    joints = (replace(arm.joints[0], name=f"{name}0"), *arm.joints[1:])
    named = replace(arm, robot=name, tip=name, joints=joints, kinematics=replace(arm.kinematics, frame=name))
    raw = yaml.safe_load(profile_text(named, name, name, 20.0))
    assert (raw["robot"], raw["kinematics"]["frame"], raw["arm"]["joints"][0]["name"]) == (name, name, f"{name}0")
    assert list(raw) == [
        "robot", "rate_hz", "tick", "reliable_sensors", "joint_states", "velocities", "action", "command", "arm",
        "gripper", "cameras", "poses", "safety", "kinematics",
    ]  # fmt: skip


PUT = st.sampled_from(["", "nan", '"', "<", "0 0", "</joint>", "l1", "fixed"])


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(TOY)), st.integers(0, 60), PUT)
def test_a_damaged_file_is_rejected_in_one_line_or_read(at: int, cut: int, put: str) -> None:
    reason = ""
    try:
        assert arm_of(TOY[:at] + put + TOY[at + cut :]).joints
    except ValueError as error:
        reason = str(error)
    assert "\n" not in reason


def test_a_continuous_joint_gets_one_turn(tmp_path: Path) -> None:
    text = TOY.replace('"j1" type="revolute"', '"j1" type="continuous"')
    text = text.replace('lower="-1" upper="2" ', "", 1)
    profile = profile_from(arm_of(text), tmp_path)
    assert profile.kinematics.joints[0].type == "continuous"
    assert (profile.arm.joints[0].low, profile.arm.joints[0].high) == pytest.approx((-math.pi, math.pi))


def test_a_lift_is_metres(tmp_path: Path) -> None:
    profile = profile_from(arm_of(TOY.replace('"j1" type="revolute"', '"j1" type="prismatic"')), tmp_path)
    assert profile.arm_units == ("m", "rad", "rad")


def test_limits_of_moveit_are_taken_and_the_tighter_wins(tmp_path: Path) -> None:
    (tmp_path / "joint_limits.yaml").write_text(
        "default_velocity_scaling_factor: 0.1\n"
        "joint_limits:\n"
        "  j1: {has_velocity_limits: true, max_velocity: 0.5, has_acceleration_limits: true, max_acceleration: 3.0,"
        " has_jerk_limits: true, max_jerk: 40.0}\n"
        "  j2: {has_velocity_limits: true, max_velocity: !degrees 180, has_position_limits: true, min_position: -0.5,"
        " max_position: 3.0, has_acceleration_limits: false, max_acceleration: 0.0}\n"
    )
    arm = arm_of(TOY, limits=read_joint_limits(str(tmp_path / "joint_limits.yaml")))
    first, second, third = arm.joints
    assert (first.velocity, first.acceleration, first.jerk) == (0.5, 3.0, 40.0)
    assert (second.low, second.high, second.velocity) == (-0.5, 2.0, 1.5)
    # Assumed: full speed after a second, full acceleration after a tenth.
    assert (third.acceleration, third.jerk) == (1.5, 15.0)
    assert arm.assumed == ("j2", "j3")
    assert "No acceleration or no jerk is stated for j2, j3." in profile_text(arm, "toy.urdf", "toy", 20.0)


def test_an_arm_with_all_limits_stated_is_not_in_doubt(tmp_path: Path) -> None:
    limits = {name: StatedLimits(acceleration=2.0, jerk=20.0) for name in ("j1", "j2", "j3")}
    assert profile_from(arm_of(TOY, limits=limits), tmp_path).arm.checked


MIMIC = '<limit lower="0" upper="0.05" velocity="0.1" effort="9"/>'
FOLLOWS = '<mimic joint="finger" multiplier="-1"/>'


def test_a_finger_that_mimics_follows_the_commanded_one() -> None:
    text = TOY.replace(
        "</robot>", joint("twin", "l3", "twin_pad", "prismatic", MIMIC + FOLLOWS) + '<link name="twin_pad"/></robot>'
    )
    gripper = arm_of(text).gripper
    assert gripper is not None
    assert [each.name for each in gripper.joints] == ["finger"]
    assert gripper.followers == ("twin",)
    both = arm_of(text.replace(MIMIC + FOLLOWS, FOLLOWS), gripper=["finger", "twin"]).gripper
    assert both is not None
    assert [(each.name, each.low, each.high) for each in both.joints] == [("finger", 0.0, 0.05), ("twin", -0.05, 0.0)]


TWO = TOY.replace("</robot>", joint("other", "l3", "thumb") + '<link name="thumb"/></robot>')


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("<robot", {}, "not a URDF"),
        ("<sdf/>", {}, "the outermost element is <sdf>, expected <robot>"),
        (TOY, {"tip": None}, r"2 ends: name the tool centre by --tip LINK. Ends are tcp \(3 joints\), pad \(4 joint"),
        (TOY, {"tip": "hand"}, "no link 'hand'; it has base, l1"),
        (TOY, {"base": "pad"}, "'tcp' is not below 'pad'"),
        (TOY, {"base": "l3"}, "no joint moves between 'l3' and 'tcp'"),
        (TOY, {"gripper": ["thumb"]}, "no joint 'thumb' moves in the URDF; j1, j2, j3, finger do"),
        (TOY, {"tip": "pad", "gripper": ["finger"]}, "moves with the gripper's 'finger': give 'l3' as --tip"),
        (TWO, {}, "name the commanded finger first by --gripper, of finger, other"),
        (TOY.replace('velocity="1.5"', 'velocity="0"', 1), {}, "'j1' has the velocity limit 0 in the URDF"),
        (TOY.replace('velocity="1.5"', "", 1), {}, "'j1' has the velocity limit none in the URDF"),
        (TOY.replace(LIMIT, "", 1), {}, "'j1' has no position limits: add <limit lower= upper=>"),
        (TOY.replace('upper="2"', 'upper="-1"', 1), {}, r"'j1' has the range -1..-1: correct its limits"),
        (TOY.replace('"j2" type="revolute"', '"j2" type="floating"'), {}, "'j2' is floating: give the link behind it"),
        (TOY.replace('"j2" type="revolute"', '"j2" type="screw"'), {}, "type 'screw' is not one of"),
        (TOY.replace("l2", "l1"), {}, "defined twice"),
        (TOY.replace('child link="l2"', 'child link="l9"'), {}, "no link 'l9'"),
        (TOY.replace('child link="l2"', 'child link="l1"'), {}, "child of two joints"),
        (
            robot(*ARM, joint("a", "r1", "r2"), joint("b", "r2", "r1"), joint("c", "r2", "r3")),
            {"tip": "r3"},
            "hang on each other in a ring: r1, r2, r3",
        ),
        (TOY.replace(MIMIC, MIMIC + '<mimic joint="finger"/>'), {}, "'finger' mimics itself in the end"),
        (
            TOY.replace(LIMIT, LIMIT + '<mimic joint="j3"/>', 1).replace(MIMIC, MIMIC + '<mimic joint="j1"/>')
            .replace(joint("j3", "l2", "l3", axis="1 0 0"), joint("j3", "l2", "l3", inside='<mimic joint="j1"/>')),
            {}, "mimics itself in the end",
        ),
        (TOY.replace('name="toy"', 'name="toy&#10;rate_hz: 900"'), {}, r"name 'toy\\nrate_hz: 900' has a line break"),
        (TOY.replace('"j2"', r'"j\x41"'), {}, "or a backslash: rename it"),
        ('<!DOCTYPE robot [<!ENTITY a "toy">]>' + TOY.replace('name="toy"', 'name="&a;"'), {}, "defines XML entities"),
        (TOY.replace('axis xyz="0 1 0"', 'axis xyz="0 0 0"'), {}, "has no direction"),
        (TOY.replace('axis xyz="0 1 0"', 'axis xyz="0 1"'), {}, "axis|xyz needs three numbers, got '0 1'"),
        (TOY.replace('velocity="1.5"', 'velocity="${fast}"'), {}, "expected a number, got .*: `xacro arm.urdf.xacro"),
        (TOY.replace('velocity="1.5"', 'velocity="inf"'), {}, "expected a finite number, got 'inf'"),
        (TOY.replace(LIMIT, LIMIT + '<mimic joint="j3"/>', 1), {}, "'j1' mimics 'j3' and lies on the way to the tip"),
        (
            TOY.replace(MIMIC, MIMIC + '<mimic joint="j3"/>'),
            {"gripper": ["finger"]},
            "'finger' mimics 'j3': name that first",
        ),
        (TOY, {"limits": {"panda_joint1": StatedLimits()}}, "none of the arm's joints j1, j2, j3; it has panda_joint1"),
        ('<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:arm/></robot>', {}, "this is xacro, no URDF"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_fix(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        arm_of(text, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joint1: {limit: {lower: 1}}", "no joint_limits.yaml of MoveIt"),
        ("joint_limits: {j1: {max_velocity: fast}}", "j1: max_velocity: expected a finite number, got 'fast'"),
        ("joint_limits: {j1: {max_velocity: 0.0}}", "max_velocity must be above 0, got 0; without a limit write has_v"),
        ("joint_limits: {j1: 3}", "j1: expected keys and values, got 3"),
        ("joint_limits: [", "cannot be read"),
    ],
)
def test_limits_that_are_none_are_rejected(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_joint_limits(str(tmp_path / "limits.yaml"))


def test_limits_are_read_as_parameters_too(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(
        "/**: {ros__parameters: {robot_description_planning: {joint_limits: {j1: {max_velocity: 2}}}}}"
    )
    assert read_joint_limits(str(tmp_path / "limits.yaml")) == {"j1": StatedLimits(velocity=2.0)}


def test_comments_of_the_xacro_source_are_no_xacro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xacro", None)
    path = tmp_path / "arm.urdf"
    text = TOY.replace("<link", '<!-- <xacro:arm\nside="left"/> ${pi} --><link', 1)
    path.write_text(text)
    assert description_text(str(path)) == text
    path.write_text(TOY.replace("<link", '<xacro:arm side="left"/><link', 1))
    with pytest.raises(ValueError, match="is xacro, no URDF"):
        description_text(str(path))


def test_xacro_is_rejected_with_the_command_or_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "arm.urdf.xacro"
    path.write_text(TOY)
    monkeypatch.setitem(sys.modules, "xacro", None)
    with pytest.raises(ValueError, match=r"is xacro, no URDF: expand it first: `xacro arm.urdf.xacro > arm.urdf`"):
        description_text(str(path))
    expanded = types.SimpleNamespace(toxml=lambda: "<robot/>")
    monkeypatch.setitem(sys.modules, "xacro", types.SimpleNamespace(process_file=lambda _: expanded))
    assert description_text(str(path)) == "<robot/>"

    def fail(_: str) -> None:
        raise RuntimeError("Undefined substitution argument\nrobot_ip")

    monkeypatch.setitem(sys.modules, "xacro", types.SimpleNamespace(process_file=fail))
    with pytest.raises(ValueError, match="xacro failed: Undefined substitution argument robot_ip; with arguments"):
        description_text(str(path))


def test_the_command_writes_a_profile_that_it_checks_and_overwrites_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.urdf").write_text(
        TOY.replace("</robot>", "</robot>").replace('<link name="l1"/>', '<link name="l1"><collision/></link>')
    )
    command = ["from-urdf", str(tmp_path / "toy.urdf"), "--tip", "tcp", "--out", str(tmp_path / "toy.yaml")]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert (
        "toy: 3 joints from base to tcp, with 2 fixed ones between, 1 gripper joints. 1 collision shapes are not used"
        in printed.err
    )
    assert "0 errors, 3 warnings" in printed.out
    before = (tmp_path / "toy.yaml").read_text()
    assert main([*command, "--rate", "30"]) == 1
    assert "exists and may have been edited" in capsys.readouterr().err
    assert (tmp_path / "toy.yaml").read_text() == before
    assert main([*command[:-2], "--rate", "30", "--robot", "mine"]) == 0
    assert "robot: mine\nrate_hz: 30.0" in capsys.readouterr().out


def test_an_arm_without_gripper_says_what_is_to_be_written(tmp_path: Path) -> None:
    profile = profile_from(arm_of(robot(*ARM), tip=None), tmp_path)
    assert profile.gripper.joints == ()
    assert "the URDF has none" in (tmp_path / "toy.yaml").read_text()


def test_a_latched_description_is_read_from_its_topic(
    ros: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.urdf").write_text(TOY)
    script = str(Path(__file__).with_name("description_publisher.py"))
    publisher = subprocess.Popen(
        [sys.executable, script, "robot_description", str(tmp_path / "toy.urdf")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    try:
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "published\n"
        assert main(["from-urdf", "--topic", "robot_description", "--tip", "tcp"]) == 0
    finally:
        publisher.communicate("", timeout=patient(20))
    printed = capsys.readouterr().out
    assert "# toy, from the topic robot_description" in printed
    assert "name: j3" in printed


def test_a_topic_that_nothing_comes_on_is_named(ros: Any) -> None:
    from pirl_ros.adapters.description_topic import read_description

    with pytest.raises(ValueError, match=r"nothing came on nowhere within 0.3 s, no publisher was seen"):
        read_description("nowhere", 0.3)
