"""`pirl robot check`: every shipped profile passes, every mistake is named, and nothing of ROS is needed."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pirl_contract import Contract
from pirl_ros.control.governor import Governor
from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.profile.action_parts import ActionPart
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import Box, Joint, JointOrigin, KinematicTable, Origin, PoseTopic
from pirl_ros.profile_check.check import main
from pirl_ros.profile_check.findings import braking, find_all, mid_range

MY_ARM = (Path(__file__).parents[2] / "docs" / "how-to" / "my-arm-in-30-minutes.md").read_text()
PARAMS = Path(__file__).parents[2] / "launch" / "params"
SHIPPED = sorted(path.stem for path in PARAMS.glob("*.yaml"))
REAL = [name for name in SHIPPED if name != "panda_sim"]


def shipped(name: str) -> Profile:
    return load_profile(PARAMS / f"{name}.yaml")


def keys(profile: Profile, error: bool) -> list[str]:
    return [finding.key for finding in find_all(profile) if finding.error is error]


def test_the_profiles_that_the_documentation_names_are_there() -> None:
    named = re.findall(
        r"`(\w+)`", "\n".join(line for line in MY_ARM.splitlines() if line.startswith("| `")).split("| `joint_t")[0]
    )
    assert sorted(named) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_has_no_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(PARAMS / f"{name}.yaml")]) == 0
    printed = capsys.readouterr().out
    profile = shipped(name)
    assert profile.contract.hash in printed
    assert profile.command.topic in printed
    for arm in profile.arms:
        assert arm.command.topic in printed
    fields = [*profile.contract.state, *profile.contract.action]
    assert all(f" {field.name} " in printed for field in fields)


KINEMATICS, ARM, GRIPPER = "kinematics.checked", "arm.checked", "gripper.checked"
TO_MEASURE = {
    "franka": [],
    "panda": [],
    "so100": [KINEMATICS],
    "so101": [KINEMATICS],
    "ur5e": [KINEMATICS],
    "ur10e": [KINEMATICS, ARM],
    "kinova_gen3": [KINEMATICS, ARM],
    "aloha": [f"arms, {side}: {key}" for side in ("left", "right") for key in (KINEMATICS, ARM, GRIPPER)],
}


@pytest.mark.parametrize(
    ("name", "warnings"), [(name, TO_MEASURE.get(name, [KINEMATICS, ARM, GRIPPER])) for name in REAL]
)
def test_a_real_arm_warns_only_of_what_its_owner_must_measure(name: str, warnings: list[str]) -> None:
    assert keys(shipped(name), error=False) == warnings


@pytest.mark.parametrize("name", REAL)
def test_a_real_arm_is_in_its_box_in_mid_range_and_can_stop(name: str) -> None:
    profile = shipped(name)
    tool = Chain.from_table(profile.kinematics).forward(mid_range(profile))[0]
    assert (np.array(profile.safety.workspace.low) < tool).all()
    assert (tool < np.array(profile.safety.workspace.high)).all()
    assert braking(profile).angle < 1.0


def test_the_second_arm_is_checked_for_its_way_to_rest_too() -> None:
    profile = shipped("aloha")
    assert "safety" not in keys(profile, error=False)
    left, right = profile.arms
    slow = replace(right, joints=(replace(right.joints[0], acceleration=1.0), *right.joints[1:]))
    [found] = [finding for finding in find_all(replace(profile, arms=(left, slow))) if finding.key == "safety"]
    assert found.text.startswith("right_waist moves by")


def test_a_tool_part_that_is_swift_is_warned_of() -> None:
    parts = (
        ActionPart("tool_delta", rotation="axis_angle", step=0.08, turn=0.5, normalised=True),
        ActionPart("gripper", closed=1.0, open=-1.0),
    )
    swift = replace(shipped("franka"), action=parts)
    said = {finding.key: finding.text for finding in find_all(swift)}
    assert "0.08 m at 20 Hz is 1.6 m/s" in said["action, step"]
    assert "0.5 rad at 20 Hz is 10.0 rad/s" in said["action, turn"]
    slow = replace(swift, action=(replace(parts[0], step=0.02, turn=0.1), parts[1]))
    assert not {"action, step", "action, turn"} & set(keys(slow, error=False))


@pytest.mark.parametrize("name", REAL)
def test_a_real_arm_keeps_its_limits_whatever_is_asked(name: str) -> None:
    profile, rng = shipped(name), np.random.default_rng(0)
    chains = [Chain.from_table(single.kinematics) for single in profile.singles]
    limits, chain = Limits.from_profile(profile), chains if profile.arms else chains[0]
    governor, joints = Governor(limits, chain), np.concatenate([mid_range(single) for single in profile.singles])
    commands = [joints]
    for _ in range(30):
        target = joints + rng.uniform(-2, 2, len(joints)) * limits.max_jump
        for _ in range(5):
            found, _altered = governor.command(target, joints, 0.0, 0.0)
            assert found is not None
            joints = found
            commands.append(joints)
    assert violations(np.array(commands), limits, chain) == {}
    assert np.abs(commands[-1] - commands[0]).max() > 0.01


def test_published_lengths_of_the_arms() -> None:
    """Outer measures of each maker, against the tables of joint origins."""
    franka = Chain.from_table(shipped("franka").kinematics).forward(np.zeros(7))[0]
    # Upright: 0.333 + 0.316 + 0.384 up, then 0.088 forward and flange + hand down.
    np.testing.assert_allclose(franka, [0.088, 0.0, 0.333 + 0.316 + 0.384 - 0.2104], atol=1e-9)
    # Data sheet of the UR5e: 0.425 + 0.3922 m of arm; d4 + d6 to the side; in base_link x points forward.
    ur5e = Chain.from_table(shipped("ur5e").kinematics).forward(np.zeros(6))[0]
    np.testing.assert_allclose(ur5e, [0.8172, 0.1333 + 0.0996 + 0.163, 0.1625 - 0.0997], atol=1e-9)
    # The same of the UR10e; shoulder, arms, wrist and the finger tips of the Gen3, upright.
    ur10e = Chain.from_table(shipped("ur10e").kinematics).forward(np.zeros(6))[0]
    np.testing.assert_allclose(ur10e, [0.6127 + 0.57155, 0.17415 + 0.11655 + 0.163, 0.1807 - 0.11985], atol=1e-9)
    gen3 = Chain.from_table(shipped("kinova_gen3").kinematics).forward(np.zeros(7))[0]
    np.testing.assert_allclose(
        gen3[2], 0.15643 + 0.12838 + 2 * 0.21038 + 0.20843 + 2 * 0.10593 + 0.0615 + 0.163, atol=1e-4
    )
    so101 = shipped("so100").kinematics
    links = [float(np.linalg.norm(origin.xyz[:2])) for origin in so101.joints[2:4]]
    np.testing.assert_allclose(links, [0.116, 0.135], atol=1e-3)


def test_stopping_is_what_a_simulation_of_the_limits_gives() -> None:
    joint = Joint("j", -3.0, 3.0, velocity=2.0, acceleration=4.0, jerk=20.0)
    for jerk in (20.0, 5.0):
        arm = replace(shipped("so100").arm, joints=(replace(joint, jerk=jerk), *shipped("so100").arm.joints[1:]))
        robot = replace(shipped("so100"), arm=arm, safety=replace(shipped("so100").safety, speed_scale=1.0))
        speed, acceleration, angle, dt = 2.0, 0.0, 2.0 * robot.safety.link_loss_s, 1e-4
        peak = min(4.0, math.sqrt(jerk * speed))
        seconds = 0.0
        while speed > 1e-6:
            # Braking harder until the peak, easier once what is left is what easing takes.
            easing = speed <= acceleration**2 / (2 * jerk) + 1e-9
            acceleration = max(acceleration - jerk * dt, 1e-3) if easing else min(acceleration + jerk * dt, peak)
            speed -= acceleration * dt
            angle, seconds = angle + speed * dt, seconds + dt
        worst = braking(robot)
        assert worst.joint == "j"
        assert worst.seconds == pytest.approx(seconds, rel=0.02)
        assert worst.angle == pytest.approx(angle, rel=0.02)


def changed(**change: Any) -> Profile:
    return replace(shipped("franka"), **change)


def safer(**change: Any) -> Profile:
    return changed(safety=replace(shipped("franka").safety, **change))


FLAT = KinematicTable((JointOrigin((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),) * 7, Origin((0.0, 0.0, 0.1), (0.0, 0.0, 0.0)))
MILLIMETRES = Box((150.0, -600.0, 10.0), (800.0, 600.0, 900.0))
TWICE = (PoseTopic("a", "tool"), PoseTopic("b", "tool"))
BIG = tuple(replace(camera, height=3000, width=4000) for camera in shipped("franka").cameras)


@pytest.mark.parametrize(
    ("profile", "key", "words"),
    [
        (safer(workspace=MILLIMETRES), "safety.workspace", "give it in metres"),
        (changed(kinematics=FLAT), "kinematics.joints", "copy xyz and rpy"),
        (safer(floor=60.0), "safety.floor", "no sampled pose has all joints above it: give metres"),
        (safer(max_chunk_age=0.01), "safety.max_chunk_age", "below one control period"),
        (safer(slop=0.5), "safety.slop", "stale first"),
        (changed(cameras=BIG), "cameras", "MiB per observation"),
        (changed(poses=TWICE), "cameras, poses", "'tool' is used 2 times"),
        (replace(shipped("so100"), action="tcp_delta", tcp_step=0.01), "action", "use joint_position"),
    ],
)
def test_errors_name_their_key(profile: Profile, key: str, words: str) -> None:
    errors = {finding.key: finding.text for finding in find_all(profile) if finding.error}
    assert words in errors[key]
    assert not any(finding.error for finding in find_all(profile)[len(errors) :]), "errors come first"


@pytest.mark.parametrize(
    ("profile", "key"),
    [
        (safer(speed_scale=2.0), "safety.speed_scale"),
        (safer(watchdog_s=5.0), "safety.watchdog_s"),
        (safer(max_jump=2.0), "safety.max_jump"),
        (safer(workspace=Box((-5.0,) * 3, (5.0,) * 3)), "safety.workspace"),
        (changed(joint_states="/joint_states"), "topics"),
        (changed(kinematics=replace(shipped("franka").kinematics, frame="")), "kinematics.frame"),
        (replace(shipped("ur5e"), safety=replace(shipped("ur5e").safety, floor=0.57)), "safety.floor"),
        (changed(tick="joint_states"), "use_sim_time"),
        (changed(rate_hz=200.0), "rate_hz"),
        (changed(command=replace(shipped("franka").command, kind="forward_position")), "command.kind"),
        (changed(gripper=replace(shipped("franka").gripper, open=0.08)), "gripper"),
        (changed(gripper=replace(shipped("franka").gripper, joints=())), "gripper.joints"),
    ],
)
def test_warnings_name_their_key(profile: Profile, key: str) -> None:
    assert key in keys(profile, error=False)
    assert key not in keys(shipped("franka"), error=False), "negative control"


def test_the_contract_is_written_and_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "contract.json"
    assert main(["check", str(PARAMS / "panda_sim.yaml"), "--contract", str(path)]) == 0
    assert Contract.from_json(path.read_text()) == shipped("panda_sim").contract
    assert json.loads(path.read_text())["robot"] == "panda_sim"
    assert main(["check", str(PARAMS / "panda_sim.yaml"), "--no-cameras", "--contract", str(path)]) == 0
    assert Contract.from_json(path.read_text()) == shipped("panda_sim").without_cameras().contract
    assert main(["check", str(PARAMS / "panda_sim.yaml"), "--contract", str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text((PARAMS / "franka.yaml").read_text().replace("jerk: 100.0}", "jerk: fast}", 1))
    assert main(["check", str(path)]) == 1
    error = capsys.readouterr().err
    assert "joints[0]: jerk: expected a finite number, got 'fast'" in error
    assert error.count("\n") == 1


def test_errors_give_exit_status_one(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text((PARAMS / "franka.yaml").read_text().replace("slop: 0.05", "slop: 0.5"))
    assert main(["check", str(path)]) == 1


def test_it_needs_neither_ros_nor_opencv_nor_torch() -> None:
    code = (
        "import sys; from pirl_ros.profile_check.check import main;"
        f"status = main(['check', {str(PARAMS / 'franka.yaml')!r}]);"
        "heavy = {'rclpy', 'cv2', 'torch'} & set(sys.modules); sys.exit(str(heavy) if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_pyyaml_the_fix_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "pirl_ros.profile.profile")
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert main(["check", str(PARAMS / "franka.yaml")]) == 1
    assert "pip install pyyaml" in capsys.readouterr().err
