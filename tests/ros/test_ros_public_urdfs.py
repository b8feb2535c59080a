"""Ten arms as their makers and packages describe them become profiles; where the tool is, MuJoCo's reader agrees."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pirl_ros.control.governor import Governor
from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limits import Limits
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile_check.check import main
from pirl_ros.profile_check.findings import find_all

PARAMS = Path(__file__).parents[2] / "launch" / "params"
SLOW = "{has_velocity_limits: true, max_velocity: 1.5}"
"""what a file must add whose velocity limits are 0, or are not given"""


@dataclass(frozen=True)
class Case:
    """One URDF of a package, and what a user has to choose."""

    package: str
    path: str
    tip: str
    joints: int
    gripper: tuple[str, ...] = ()
    base: str | None = None
    slow: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{self.package} is not installed: make setup")
        return Path(spec.origin).parent / self.path


MANI, RTB = "mani_skill", "rtbdata"
SO100 = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
KOCH = tuple(f"joint_{index}" for index in range(1, 7))
FINGERS = ("panda_finger_joint1", "panda_finger_joint2")
KUKA = "xacro/kuka_description"
CASES = {
    "Panda": Case(MANI, "assets/robots/panda/panda_v2.urdf", "panda_hand_tcp", 7, FINGERS),
    "Panda with a camera": Case(MANI, "assets/robots/panda/panda_v3.urdf", "panda_hand_tcp", 7),
    "xArm7": Case(MANI, "assets/robots/xarm7/xarm7.urdf", "link_eef", 7),
    "SO-100": Case(MANI, "assets/robots/so100/so100.urdf", "Fixed_Jaw_tip", 5, slow=SO100),
    "Koch": Case(MANI, "assets/robots/koch/follower_arm_v1.1.urdf", "gripper_tcp", 5, slow=KOCH),
    "Fetch": Case(
        MANI, "assets/robots/fetch/fetch.urdf", "gripper_link", 8, ("l_gripper_finger_joint",), base="base_link"
    ),
    "iiwa 14": Case(RTB, f"{KUKA}/kuka_lbr_iiwa/urdf/lbr_iiwa_14_r820.urdf", "tool0", 7),
    "KR 16": Case(RTB, f"{KUKA}/kuka_kr16/urdf/kr16_2.urdf", "tool0", 6),
    "KR 120": Case(RTB, f"{KUKA}/kuka_kr120/urdf/kr120r2500pro.urdf", "tool0", 6),
    "KR 210": Case(RTB, f"{KUKA}/kuka_kr210/urdf/kr210l150.urdf", "tool0", 6),
    "IRB 140": Case(RTB, "xacro/abb_irb140_description/urdf/irb140.urdf", "tool0", 6),
    "Puma 560": Case(
        RTB,
        "xacro/unimation_puma560_description/urdf/puma560_robot.urdf",
        "link7",
        6,
        slow=("j1", "j2", "j3", "j4", "j5", "j6"),
    ),
}


def arguments(case: Case, folder: Path) -> list[str]:
    chosen = ["from-urdf", str(case.file), "--tip", case.tip]
    chosen += ["--gripper", *case.gripper] if case.gripper else []
    chosen += ["--base", case.base] if case.base else []
    if case.slow:
        (folder / "joint_limits.yaml").write_text(
            "joint_limits:\n" + "".join(f"  {name}: {SLOW}\n" for name in case.slow)
        )
        chosen += ["--limits", str(folder / "joint_limits.yaml")]
    return chosen


def written(case: Case, folder: Path) -> Profile:
    out = folder / "profile.yaml"
    assert main([*arguments(case, folder), "--out", str(out)]) == 0
    return load_profile(out)


class Oracle:
    """MuJoCo's model of the same file, without its shapes: only where each link is for given joints."""

    def __init__(self, file: Path) -> None:
        self._mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed: make setup")
        robot = ET.fromstring(file.read_text())
        for link in robot.findall("link"):
            for shape in (*link.findall("visual"), *link.findall("collision"), *link.findall("inertial")):
                link.remove(shape)
            link.append(
                ET.fromstring(
                    '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
                )
            )
        for element in [*robot.findall("material"), *robot.findall("transmission"), *robot.findall("gazebo")]:
            robot.remove(element)
        robot.append(ET.fromstring('<mujoco><compiler fusestatic="false"/></mujoco>'))
        self._model = self._mujoco.MjModel.from_xml_string(ET.tostring(robot, encoding="unicode"))
        self._data = self._mujoco.MjData(self._model)

    def pose(self, base: str, tip: str, joints: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Position and rotation of link `tip` in `base`, joints by name, the others at 0."""
        self._data.qpos[:] = 0.0
        for name, value in joints.items():
            self._data.qpos[self._model.joint(name).qposadr[0]] = value
        self._mujoco.mj_kinematics(self._model, self._data)
        (p, r), (q, s) = (self._frame(link) for link in (base, tip))
        return r.T @ (q - p), r.T @ s

    def _frame(self, link: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            body = self._data.body(link)
        except KeyError:  # the root, which MuJoCo calls its world
            return np.zeros(3), np.eye(3)
        return body.xpos.copy(), body.xmat.reshape(3, 3).copy()


@pytest.mark.parametrize("name", CASES)
def test_a_public_urdf_becomes_a_profile_without_errors(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    profile = written(case, tmp_path)
    assert len(profile.arm.joints) == case.joints
    assert not [finding for finding in find_all(profile) if finding.error]
    warned = {finding.key for finding in find_all(profile)}
    assert {"arm.checked", "gripper.checked", "kinematics.checked"} <= warned
    shapes = re.sub("<!--.*?-->", "", case.file.read_text(), flags=re.DOTALL).count("<collision")
    assert f"{shapes} collision shapes are not used" in capsys.readouterr().err
    # What drives it takes it.
    Governor(Limits.from_profile(profile), Chain.from_table(profile.kinematics))


@pytest.mark.parametrize("name", CASES)
def test_the_tool_is_where_mujoco_has_it(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    profile, oracle = written(case, tmp_path), Oracle(case.file)
    chain, names = Chain.from_table(profile.kinematics), [joint.name for joint in profile.arm.joints]
    low, high = ([getattr(joint, end) for joint in profile.arm.joints] for end in ("low", "high"))
    for joints in np.random.default_rng(0).uniform(low, high, (50, len(names))):
        position, rotation = chain.forward(joints)
        expected = oracle.pose(profile.kinematics.frame, case.tip, dict(zip(names, joints)))
        np.testing.assert_allclose(position, expected[0], atol=1e-6)
        np.testing.assert_allclose(rotation, expected[1], atol=1e-6)


@pytest.mark.parametrize(
    ("shipped", "name", "beyond", "renamed"),
    [
        ("panda", "Panda", 0.0, {}),
        ("xarm7", "xArm7", 0.172, {}),
        ("koch", "Koch", 0.0, dict(zip(SO100, KOCH))),
    ],
)
def test_a_shipped_profile_is_the_arm_of_the_public_urdf(
    shipped: str, name: str, beyond: float, renamed: dict[str, str]
) -> None:
    """Its tool lies `beyond` the URDF's last link; a profile may name the joints otherwise."""
    case, profile = CASES[name], load_profile(PARAMS / f"{shipped}.yaml")
    oracle, chain = Oracle(case.file), Chain.from_table(profile.kinematics)
    names = [renamed.get(joint.name, joint.name) for joint in profile.arm.joints]
    low, high = ([getattr(joint, end) for joint in profile.arm.joints] for end in ("low", "high"))
    for joints in np.random.default_rng(1).uniform(low, high, (30, len(names))):
        position, rotation = chain.forward(joints)
        expected = oracle.pose(profile.kinematics.frame, case.tip, dict(zip(names, joints)))
        np.testing.assert_allclose(position - beyond * rotation[:, 2], expected[0], atol=2e-6)
        np.testing.assert_allclose(rotation, expected[1], atol=1e-5)


def test_the_oracle_sees_a_wrong_axis(tmp_path: Path) -> None:
    case = CASES["KR 16"]
    oracle, other = Oracle(case.file), tmp_path / "other.urdf"
    text = case.file.read_text()
    assert text.count('<axis xyz="0 1 0"') > 0
    other.write_text(text.replace('<axis xyz="0 1 0"', '<axis xyz="0 -1 0"', 1))
    joints = dict.fromkeys((f"joint_a{index}" for index in range(1, 7)), 0.3)
    poses = [each.pose("base_link", "tool0", joints)[0] for each in (oracle, Oracle(other))]
    assert np.linalg.norm(poses[0] - poses[1]) > 0.1


@pytest.mark.parametrize("name", ["SO-100", "Puma 560"])
def test_a_velocity_limit_of_zero_is_rejected(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    assert main(["from-urdf", str(case.file), "--tip", case.tip]) == 1
    assert f"joint '{case.slow[0]}' has the velocity limit 0 in the URDF" in capsys.readouterr().err
