"""Robot profiles: strict reading, and the contract they yield."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pirl_ros.profile.profile import Profile, load_profile


def write(tmp_path: Path, profile_path: Path, change: dict[str, Any], where: tuple[Any, ...] = ()) -> Path:
    raw = yaml.safe_load(profile_path.read_text())
    section = raw
    for key in where:
        section = section[key]
    for key, value in change.items():
        if value is None:
            del section[key]
        else:
            section[key] = value
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_state_and_action_in_the_order_of_the_contract(profile: Profile) -> None:
    contract = profile.contract
    names = [field.name for field in contract.state]
    assert len(names) == 35
    assert names[0] == "panda_joint1.position"
    assert names[8:10] == ["panda_finger_joint2.position", "panda_joint1.velocity"]
    assert names[18:25] == ["tcp.x", "tcp.y", "tcp.z", "tcp.qw", "tcp.qx", "tcp.qy", "tcp.qz"]
    assert names[-3:] == ["goal.x", "goal.y", "goal.z"]
    assert [field.name for field in contract.action] == ["tcp_dx", "tcp_dy", "tcp_dz", "gripper"]
    assert contract.state[8].unit == "m"


def test_the_shipped_checkpoints_still_fit(profile: Profile) -> None:
    """Their manifest holds these hashes: a profile key that changes them strands every policy trained so far."""
    assert (profile.contract.hash, profile.without_cameras().contract.hash) == ("fc46382182d92bef", "bcb3f96067ff3632")


def test_the_simulator_is_the_same_robot(profile: Profile) -> None:
    panda = pytest.importorskip("pirl_sim.maniskill.panda", reason="pirl_sim is not on the path")
    assert profile.contract.difference(panda.panda_contract()) == []
    assert profile.contract.hash == panda.panda_contract().hash
    assert profile.without_cameras().contract.hash == panda.panda_contract(cameras=False).hash


@pytest.mark.parametrize(
    ("where", "change", "words"),
    [
        ((), {"colour": "red"}, "unknown key 'colour'"),
        ((), {"safety": None}, "'safety' is missing"),
        (("arm", "joints", 2), {"low": None}, r"arm: joints\[2\]: 'low' is missing"),
        (("arm", "joints", 0), {"velocity": "fast"}, "finite number, got 'fast'"),
        (("arm", "joints", 0), {"high": float("inf")}, "finite number, got inf"),
        (("arm", "joints", 0), {"high": -3.0}, "needs low < high"),
        (("arm", "joints", 0), {"velocity": 0.0}, "velocity > 0"),
        (("arm", "joints", 6), {"acceleration": None}, r"joints\[6\]: 'acceleration' is missing"),
        (("arm", "joints", 0), {"acceleration": 0.0}, "acceleration > 0"),
        (("arm", "joints", 0), {"jerk": -1.0}, "jerk > 0"),
        (("safety",), {"workspace": None}, "'workspace' is missing"),
        (("safety", "workspace"), {"low": [0.0, 0.0]}, "safety: workspace: low needs three numbers"),
        (("safety", "workspace"), {"low": [0.0, 0.0, 11.0]}, r"workspace: low .* must be under high"),
        (("safety",), {"watchdog_s": None}, "'watchdog_s' is missing"),
        (("safety",), {"link_loss_s": 0.0}, "link_loss_s must be above 0"),
        (("command",), {"kind": "telepathy"}, "'telepathy' is not one of joint_trajectory, follow"),
        (("command",), {"kind": "servo_twist"}, "frame is needed"),
        (("command",), {"topic": ""}, "topic is empty"),
        (("gripper",), {"open_above": -0.5}, "close_below must be under open_above"),
        ((), {"action": "joint_delta"}, "tcp_step must be above 0 for action tcp_delta and omitted"),
        (("poses", 1), {"name": "tcp"}, "'tcp' is defined twice"),
        (("safety",), {"max_jump": -1.0}, "max_jump must be above 0"),
        (("safety",), {"max_chunk_age": None}, "'max_chunk_age' is missing"),
        (("kinematics",), {"joints": []}, "needs 7 entries"),
        (("gripper",), {"command_joint": "thumb"}, "'thumb' is not in"),
        ((), {"tick": "sometimes"}, "'sometimes' is not one of"),
        ((), {"rate_hz": 0}, "rate_hz"),
        (("cameras", 0), {"height": 64.5}, "expected a whole number, got 64.5$"),
    ],
)
def test_mistakes_are_named_in_one_line(
    tmp_path: Path, profile_path: Path, where: tuple[Any, ...], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        load_profile(write(tmp_path, profile_path, change, where))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "written", "fix"),
    [
        ("rate_hz", "1e9", "write 1.0e+9"),
        ("rate_hz", "1E9", "write 1.0e+9"),
        ("rate_hz", "2e-3", "write 2.0e-3"),
        ("rate_hz", "-1e3", "write -1.0e+3"),
        ("rate_hz", "1.5e3", "write 1.5e+3"),
        ("rate_hz", "1.5e03", "write 1.5e+03"),
        ("rate_hz", "1e+3", "write 1.0e+3"),
        ("rate_hz", "'20.5'", "write 20.5, without quotes"),
        ("rate_hz", "fast", "a finite number, got 'fast'"),
        ("rate_hz", "", "give it a value, or leave the key out"),
        ("robot", "007", "put it in quotes"),
        ("robot", "2026-11-30", "put it in quotes"),
        ("robot", "no", "put it in quotes (YAML 1.1 reads yes, no, on and off as true and false)"),
        ("velocities", "'true'", "write true or false, without quotes"),
        ("velocities", "1", "write true or false, without quotes"),
    ],
)
def test_what_yaml_reads_in_a_way_of_its_own_is_named_with_what_to_write(
    tmp_path: Path, profile_path: Path, key: str, written: str, fix: str
) -> None:
    lines = [line for line in profile_path.read_text().splitlines() if not line.startswith(f"{key}:")]
    path = tmp_path / "robot.yaml"
    path.write_text("\n".join([*lines, f"{key}: {written}"]))
    with pytest.raises(ValueError, match=f"{key}: expected ") as raised:
        load_profile(path)
    assert str(raised.value).endswith(fix)
    assert "\n" not in str(raised.value)
    if numbers := re.findall(r"write (-?\d\S*\d)", str(raised.value)):
        assert yaml.safe_load(numbers[0]) == float(written.strip("'")), "the spelling named is read as the number"


def test_other_types_are_named_with_what_to_write(tmp_path: Path, profile_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cameras: expected a list, got 'base': write \[a, b\]$"):
        load_profile(write(tmp_path, profile_path, {"cameras": "base"}))
    with pytest.raises(ValueError, match=r"height: expected a whole number, got 64\.0: write 64$"):
        load_profile(write(tmp_path, profile_path, {"height": 64.0}, ("cameras", 0)))


@pytest.mark.parametrize(
    "text", ["arm_node:\n  ros__parameters:\n    dry_run: true\n", "/left:\n  arm_node:\n    ros__parameters: {}\n"]
)
def test_a_ros_parameter_file_is_named_with_where_to_give_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"is a ROS parameter file, no robot profile: .*params_file:=.*profile:=FILE"):
        load_profile(path)


def test_a_name_that_is_not_there_lists_those_that_are(profile_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has aloha, franka, kinova_gen3, .*, ur5e, .* profile:=FILE"):
        load_profile(profile_path.with_name("frnka.yaml"))


def test_the_base_frame_is_stated_once(profile: Profile) -> None:
    assert profile.base_frame == "panda_link0"
    unnamed = replace(profile.kinematics, frame="")
    assert replace(profile, kinematics=unnamed).base_frame == ""
    servo = replace(profile.command, kind="servo_twist", frame="base")
    assert replace(profile, kinematics=unnamed, command=servo).base_frame == "base"
    with pytest.raises(ValueError, match=r"must both be the base frame, got \['base', 'panda_link0'\]"):
        replace(profile, command=servo)


def test_what_makes_a_profile_one_of_a_simulation(profile: Profile) -> None:
    assert len(profile.simulation_only) == 4
    real = load_profile(Path(__file__).parents[2] / "launch" / "params" / "franka.yaml")
    assert real.simulation_only == ()
    joints = (replace(real.arm.joints[0], jerk=1e9), *real.arm.joints[1:])
    for change, key in (
        ({"tick": "joint_states"}, "tick"),
        ({"safety": replace(real.safety, speed_scale=1.5)}, "safety.speed_scale 1.5"),
        ({"arm": replace(real.arm, joints=joints)}, "arm.joints"),
        ({"safety": replace(real.safety, watchdog_s=61.0)}, "watchdog_s"),
        ({"safety": replace(real.safety, link_loss_s=61.0)}, "link_loss_s"),
    ):
        [reason] = replace(real, **change).simulation_only  # type: ignore[arg-type]
        assert key in reason


@pytest.mark.parametrize("text", ["", "[1, 2]", "robot: [unclosed"])
def test_a_file_that_is_no_profile(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"robot\.yaml") as raised:
        load_profile(path)
    assert "\n" not in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml does not exist$"):
        load_profile(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        load_profile(tmp_path)
