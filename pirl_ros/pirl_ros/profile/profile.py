"""One robot as a YAML file: joints, limits, cameras, topics, kinematics. It yields the robot's `Contract`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from pirl_contract import Camera, Contract, Field
from pirl_ros.profile.action_parts import ActionPart, base_entries, entries, parts_of
from pirl_ros.profile.sections import (
    ActionKind,
    ArmGroup,
    ArmSection,
    BaseSection,
    CameraTopic,
    Command,
    Finger,
    GripperGroup,
    Joint,
    KinematicTable,
    PoseTopic,
    SafetyLimits,
    WrenchTopic,
)
from pirl_ros.profile.strict_yaml import build

_POSE_JOINTS = 6
_LONGEST_SILENCE_S = 60.0
"""after which any real arm has to be at rest; far above what `pirl robot check` warns of"""


@dataclass(frozen=True)
class Profile:
    """Everything the nodes know about one robot."""

    robot: str
    rate_hz: float
    tick: Literal["joint_states", "timer"]
    reliable_sensors: bool
    joint_states: str
    arm: ArmGroup
    command: Command
    gripper: GripperGroup
    cameras: tuple[CameraTopic, ...]
    poses: tuple[PoseTopic, ...]
    safety: SafetyLimits
    kinematics: KinematicTable
    action: ActionKind | tuple[ActionPart, ...] = "tcp_delta"
    """what an action means: a word, with the gripper last, or a list of parts in the order of the entries"""
    tcp_step: float = 0.0
    """m per control period and axis: range of a tcp_delta action"""
    velocities: bool = True
    """whether joint velocities are part of the state; not every driver publishes them"""
    wrenches: tuple[WrenchTopic, ...] = ()
    arms: tuple[ArmSection, ...] = ()
    """of several; `arm`, `command`, `gripper`, `kinematics` and `safety.workspace` are then the first one's"""

    base: BaseSection | None = None
    """of a robot that drives, whose action has a part base_velocity"""

    def __post_init__(self) -> None:
        self._check_arms()
        if self.rate_hz <= 0:
            raise ValueError("rate_hz must be above 0")
        if (self.action == "tcp_delta") != (self.tcp_step > 0):
            raise ValueError("tcp_step must be above 0 for action tcp_delta and omitted for other actions")
        if self.command.kind == "servo_twist" and not any(part.of_tool for part in self.action_parts):
            raise ValueError("command.kind servo_twist moves the tool centre: it needs action tcp_delta or a tool part")
        if len(self.kinematics.joints) != len(self.arm.joints):
            raise ValueError(f"kinematics.joints needs {len(self.arm.joints)} entries, one per arm joint")
        if self.command.joints and sorted(self.command.joints) != sorted(joint.name for joint in self.arm.joints):
            raise ValueError("command.joints must name the arm's joints, each once")
        frames = {frame for frame in (self.command.frame, self.kinematics.frame) if frame}
        if len(frames) > 1:
            raise ValueError(f"command.frame and kinematics.frame must both be the base frame, got {sorted(frames)}")
        joints = [joint.name for joint in self.joints]
        streams = [camera.name for camera in self.cameras] + [pose.name for pose in self.poses]
        streams += [wrench.name for wrench in self.wrenches]
        for names in (joints, streams):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"'{twice[0]}' is defined twice: joints, cameras, poses, wrenches need unique names")
        self._check_base()
        self._check_action()

    def _check_arms(self) -> None:
        """Raise ValueError unless each arm is a robot by itself, and each part of the action one arm's."""
        names = [arm.name for arm in self.arms]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two arms are named '{twice[0]}'")
        for part in self.action_parts:
            if part.kind != "base_velocity" and part.arm not in (names or [""]):
                known = ", ".join(names) or "the robot's: it has one, leave it out"
                raise ValueError(f"action: arm '{part.arm}' of {part.kind} is not one of {known}")
        topics = [topic for arm in self.arms for topic in (arm.command.topic, arm.gripper.topic)]
        if twice := [topic for topic in topics if topics.count(topic) > 1]:
            raise ValueError(
                f"arms: '{twice[0]}' is commanded twice: each arm and each gripper needs a topic of its own"
            )
        for arm in self.arms:
            try:
                self._single(arm)
            except ValueError as error:
                raise ValueError(f"arm {arm.name}: {error}") from None

    def _check_base(self) -> None:
        """Raise ValueError unless a mobile base has its part of the action, and that a base."""
        driven = [part.kind for part in self.action_parts].count("base_velocity")
        if driven != (self.base is not None):
            raise ValueError(
                "a base and one part base_velocity of action belong together:"
                f" {driven} parts and {'a' if self.base else 'no'} base"
            )

    def _check_action(self) -> None:
        """Raise ValueError unless each joint and the gripper are commanded by one part, and by no more."""
        if self.arms or isinstance(self.action, str):
            return
        if [part.kind for part in self.action].count("gripper") != 1:
            raise ValueError("action needs one part of kind gripper")
        own = [joint.name for joint in self.arm.joints]
        tools = [part for part in self.action if part.of_tool]
        named = [name for part in self.action if part.of_joints for name in part.joints or own]
        if unknown := [name for name in named if name not in own]:
            raise ValueError(f"action names joint '{unknown[0]}', the arm has {', '.join(own)}")
        if twice := [name for name in own if named.count(name) > 1]:
            raise ValueError(f"joint '{twice[0]}' is commanded by two parts of action: name each joint once")
        left = [name for name in own if name not in named]
        if len(tools) > 1:
            raise ValueError("action has two tool parts: one places the tool centre")
        if not tools and left:
            raise ValueError(f"joint '{left[0]}' has no entry in action: give it one, or add a tool part")
        if tools and len(left) < _POSE_JOINTS:
            raise ValueError(
                f"a {tools[0].kind} needs {_POSE_JOINTS} joints that no other part commands, {len(left)} are left:"
                " position and orientation have as many freedoms"
            )

    @cached_property
    def singles(self) -> tuple[Profile, ...]:
        """A profile of each arm, without cameras, poses and wrenches; of a robot with one arm that of the robot."""
        return tuple(self._single(arm) for arm in self.arms) or (self,)

    def _single(self, arm: ArmSection) -> Profile:
        return replace(
            self,
            robot=f"{self.robot} {arm.name}",
            arms=(),
            base=None,
            arm=ArmGroup(arm.joints, arm.checked),
            command=arm.command,
            gripper=arm.gripper,
            kinematics=arm.kinematics,
            safety=replace(self.safety, workspace=arm.workspace),
            action=tuple(replace(part, arm="") for part in self.action_parts if part.arm == arm.name),
            tcp_step=0.0,
            cameras=(),
            poses=(),
            wrenches=(),
        )

    @property
    def action_parts(self) -> tuple[ActionPart, ...]:
        """The parts of an action, in the order of its entries; a word for `action` stands for some, of each arm."""
        if not isinstance(self.action, str):
            return self.action
        parts = parts_of(self.action, self.tcp_step)
        return tuple(replace(part, arm=arm.name) for arm in self.arms for part in parts) or parts

    def joints_of(self, part: ActionPart) -> tuple[tuple[str, Joint], ...]:
        """Return the arm joints that a part has entries for, in their order, each behind its unit."""
        single = self if not self.arms else self.singles[[arm.name for arm in self.arms].index(part.arm)]
        by_name = {joint.name: (unit, joint) for unit, joint in zip(single.arm_units, single.arm.joints)}
        return tuple(by_name[name] for name in part.joints or by_name)

    @property
    def arm_joints(self) -> tuple[Joint, ...]:
        """The joints of all arms, in the order of commands."""
        return tuple(joint for arm in self.arms for joint in arm.joints) or self.arm.joints

    @property
    def joints(self) -> tuple[Finger, ...]:
        """Arm, then fingers, of one arm after the other: the order of the state."""
        return tuple(joint for each in self.singles for joint in (*each.arm.joints, *each.gripper.joints))

    @property
    def arm_units(self) -> tuple[Literal["rad", "m"], ...]:
        """Unit of each arm joint's position."""
        return tuple("m" if joint.type == "prismatic" else "rad" for joint in self.kinematics.joints)

    @property
    def base_frame(self) -> str:
        """frame_id of the base frame of the kinematics; empty: the profile does not name it."""
        return self.kinematics.frame or self.command.frame

    @property
    def simulation_only(self) -> tuple[str, ...]:
        """Why no real arm may be driven with this profile, one reason per key; empty for that of a real arm."""
        reasons = {
            "tick: joint_states knows no watchdog": self.tick == "joint_states",
            f"safety.speed_scale {self.safety.speed_scale:g} is above 1": self.safety.speed_scale > 1,
            "arm.joints have limits beyond any real arm": any(
                joint.unlimited(unit) for each in self.singles for unit, joint in zip(each.arm_units, each.arm.joints)
            ),
            f"safety.watchdog_s or link_loss_s is above {_LONGEST_SILENCE_S:g} s": (
                max(self.safety.watchdog_s, self.safety.link_loss_s) > _LONGEST_SILENCE_S
            ),
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    @property
    def contract(self) -> Contract:
        """The contract that the server must agree with."""
        units = [pair for each in self.singles for pair in each._units()]
        positions = [Field(f"{joint.name}.position", unit, joint.low, joint.high) for unit, joint in units]
        velocities = [
            Field(f"{joint.name}.velocity", f"{unit}/s", -joint.velocity, joint.velocity) for unit, joint in units
        ]
        poses = [field for pose in self.poses for field in _pose_fields(pose)]
        wrenches = [field for wrench in self.wrenches for field in _wrench_fields(wrench)]
        return Contract(
            robot=self.robot,
            cameras=tuple(Camera(camera.name, camera.height, camera.width) for camera in self.cameras),
            state=(*positions, *(velocities if self.velocities else ()), *poses, *wrenches),
            action=tuple(field for part in self.action_parts for field in self._entries(part)),
            rate_hz=self.rate_hz,
        )

    def _entries(self, part: ActionPart) -> tuple[Field, ...]:
        if part.kind == "base_velocity":
            assert self.base is not None, "checked"
            return base_entries(self.base)
        return entries(part, self.joints_of(part) if part.of_joints else (), part.arm and f"{part.arm}_")

    def _units(self) -> Iterator[tuple[str, Finger]]:
        """The joints of one arm, each behind the unit of its position."""
        yield from zip(self.arm_units, self.arm.joints)
        yield from ((self.gripper.unit, finger) for finger in self.gripper.joints)

    def without_cameras(self) -> Profile:
        """Return the profile of the same robot for a state-only policy."""
        return replace(self, cameras=())


def load_profile(path: str | Path) -> Profile:
    """Read a profile. Raises ValueError in one line: unknown key, missing key, wrong type, limit that is none."""
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ValueError(f"robot profile {path} does not exist{_others(Path(path).parent)}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"robot profile {path} cannot be read: {' '.join(str(error).split())}") from error
    if _is_parameter_file(raw):
        raise ValueError(
            f"{path} is a ROS parameter file, no robot profile: give it as params_file:= to ros2 launch (--params-file"
            " to ros2 run), and the robot as robot:=NAME or profile:=FILE"
        )
    if isinstance(raw, dict) and "arms" in raw:
        raw = _with_first_arm(raw, str(path))
    profile: Profile = build(Profile, raw, str(path))
    return profile


def _with_first_arm(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """The profile of several arms with the first one's sections where those of a single arm stand."""
    for key in ("arm", "command", "gripper", "kinematics"):
        if key in raw:
            raise ValueError(f"{where}: '{key}' and 'arms': each of several arms has a {key} of its own")
    arms = build(tuple[ArmSection, ...], raw["arms"], f"{where}: arms")
    if len(arms) < 2:
        raise ValueError(f"{where}: arms: needs two or more; one arm is written as arm, command, gripper, kinematics")
    first = raw["arms"][0]
    safety = raw.get("safety")
    if isinstance(safety, dict):
        if "workspace" in safety:
            raise ValueError(f"{where}: safety: 'workspace' and 'arms': each of several arms has its own")
        safety = safety | {"workspace": first["workspace"]}
    sections = {key: first[key] for key in ("command", "gripper", "kinematics")}
    return raw | sections | {"arm": {"joints": first["joints"]}, "safety": safety}


def _others(folder: Path) -> str:
    names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    return f": {folder} has {names}; one in another folder is given by its path, as profile:=FILE" if names else ""


def _is_parameter_file(raw: object) -> bool:
    """Whether this is `node: ros__parameters: ...`, with or without namespaces above it."""
    if not isinstance(raw, dict):
        return False
    return "ros__parameters" in raw or any(_is_parameter_file(value) for value in raw.values())


def _pose_fields(pose: PoseTopic) -> list[Field]:
    quaternion = () if pose.position_only else ("qw", "qx", "qy", "qz")
    metres = [Field(f"{pose.name}.{axis}", "m") for axis in "xyz"]
    return metres + [Field(f"{pose.name}.{part}", "1") for part in quaternion]


def _wrench_fields(wrench: WrenchTopic) -> list[Field]:
    forces = [Field(f"{wrench.name}.f{axis}", "N", -wrench.force, wrench.force) for axis in "xyz"]
    return forces + [Field(f"{wrench.name}.t{axis}", "Nm", -wrench.torque, wrench.torque) for axis in "xyz"]
