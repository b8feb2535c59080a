"""Robot profiles: strict reading, and the contract they yield."""

from __future__ import annotations

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
        (("cameras", 0), {"height": 64.5}, "expected a int"),
    ],
)
def test_mistakes_are_named_in_one_line(
    tmp_path: Path, profile_path: Path, where: tuple[Any, ...], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        load_profile(write(tmp_path, profile_path, change, where))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "robot: [unclosed"])
def test_a_file_that_is_no_profile(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"robot\.yaml") as raised:
        load_profile(path)
    assert "\n" not in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load_profile(tmp_path / "none.yaml")
