"""One robot as a YAML file: joints, limits, cameras, topics, kinematics. It yields the robot's `Contract`."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from pirl_contract import Camera, Contract, Field

T = TypeVar("T")


@dataclass(frozen=True)
class Joint:
    """One joint: rad and rad/s, or m and m/s for a finger."""

    name: str
    low: float
    high: float
    velocity: float


@dataclass(frozen=True)
class ArmGroup:
    """The arm's joints, in the order of the state, and the controller topic they are commanded on."""

    topic: str
    joints: tuple[Joint, ...]


@dataclass(frozen=True)
class GripperGroup:
    """The fingers; one of them is commanded: gripper action -1 means `closed`, +1 means `open` (metres)."""

    topic: str
    command_joint: str
    closed: float
    open: float
    joints: tuple[Joint, ...]


@dataclass(frozen=True)
class CameraTopic:
    """One camera and the topic it is published on."""

    name: str
    topic: str
    height: int
    width: int


@dataclass(frozen=True)
class PoseTopic:
    """One PoseStamped topic; gives xyz + wxyz to the state, or xyz only."""

    name: str
    topic: str
    position_only: bool = False


@dataclass(frozen=True)
class SafetyLimits:
    """What the governor and the synchroniser refuse. Seconds and radians."""

    max_jump: float
    max_chunk_age: float
    max_observation_age: float
    slop: float
    speed_scale: float = 1.0


@dataclass(frozen=True)
class Origin:
    """A fixed transform as URDF writes it: metres and roll, pitch, yaw in radians."""

    xyz: tuple[float, ...]
    rpy: tuple[float, ...]


@dataclass(frozen=True)
class KinematicTable:
    """Origin of each arm joint in the frame before it, and of the tool centre in the last joint's frame."""

    joints: tuple[Origin, ...]
    tool: Origin


@dataclass(frozen=True)
class Profile:
    """Everything the nodes know about one robot."""

    robot: str
    rate_hz: float
    tick: Literal["joint_states", "timer"]
    reliable_sensors: bool
    joint_states: str
    arm: ArmGroup
    gripper: GripperGroup
    cameras: tuple[CameraTopic, ...]
    poses: tuple[PoseTopic, ...]
    tcp_step: float
    safety: SafetyLimits
    kinematics: KinematicTable

    @property
    def joints(self) -> tuple[Joint, ...]:
        """Arm, then fingers: the order of the state."""
        return (*self.arm.joints, *self.gripper.joints)

    @property
    def contract(self) -> Contract:
        """The contract that the server must agree with."""
        names = [(joint, "m" if joint in self.gripper.joints else "rad") for joint in self.joints]
        positions = [Field(f"{joint.name}.position", unit, joint.low, joint.high) for joint, unit in names]
        velocities = [
            Field(f"{joint.name}.velocity", f"{unit}/s", -joint.velocity, joint.velocity) for joint, unit in names
        ]
        poses = [field for pose in self.poses for field in _pose_fields(pose)]
        deltas = [Field(f"tcp_d{axis}", "m", -self.tcp_step, self.tcp_step) for axis in "xyz"]
        return Contract(
            robot=self.robot,
            cameras=tuple(Camera(camera.name, camera.height, camera.width) for camera in self.cameras),
            state=(*positions, *velocities, *poses),
            action=(*deltas, Field("gripper", "1", -1.0, 1.0)),
            rate_hz=self.rate_hz,
        )

    def without_cameras(self) -> Profile:
        """Return the profile of the same robot for a policy that sees the state only."""
        return replace(self, cameras=())


def load_profile(path: str | Path) -> Profile:
    """Read a profile. Raises ValueError in one line: unknown key, missing key, wrong type, limit that is none."""
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"robot profile {path} cannot be read: {' '.join(str(error).split())}") from error
    profile: Profile = _build(Profile, raw, str(path))
    _check(profile, str(path))
    return profile


def _check(profile: Profile, path: str) -> None:
    for joint in profile.joints:
        if not joint.low < joint.high or joint.velocity <= 0:
            raise ValueError(f"{path}: joint {joint.name} needs low < high and velocity > 0")
    if len(profile.kinematics.joints) != len(profile.arm.joints):
        raise ValueError(f"{path}: kinematics.joints needs {len(profile.arm.joints)} entries, one per arm joint")
    if profile.gripper.command_joint not in [joint.name for joint in profile.gripper.joints]:
        raise ValueError(f"{path}: gripper.command_joint '{profile.gripper.command_joint}' is not in gripper.joints")
    for name in ("max_jump", "max_chunk_age", "max_observation_age", "speed_scale"):
        if getattr(profile.safety, name) <= 0:
            raise ValueError(f"{path}: safety.{name} must be above 0")
    if profile.rate_hz <= 0 or profile.tcp_step <= 0 or not profile.gripper.closed < profile.gripper.open:
        raise ValueError(f"{path}: rate_hz and tcp_step must be above 0 and gripper.closed below gripper.open")


def _pose_fields(pose: PoseTopic) -> list[Field]:
    quaternion = () if pose.position_only else ("qw", "qx", "qy", "qz")
    metres = [Field(f"{pose.name}.{axis}", "m") for axis in "xyz"]
    return metres + [Field(f"{pose.name}.{part}", "1") for part in quaternion]


def _build(kind: Any, raw: Any, where: str) -> Any:
    """Turn parsed YAML into `kind`, strictly: no unknown key, no missing key, no silent conversion."""
    if is_dataclass(kind):
        return _build_section(kind, raw, where)
    if get_origin(kind) is tuple:
        if not isinstance(raw, list):
            raise ValueError(f"{where}: expected a list, got {raw!r}")
        return tuple(_build(get_args(kind)[0], entry, f"{where}[{index}]") for index, entry in enumerate(raw))
    if get_origin(kind) is Literal:
        if raw not in get_args(kind):
            raise ValueError(f"{where}: {raw!r} is none of {', '.join(get_args(kind))}")
        return raw
    if kind is float and isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    if kind is not float and type(raw) is kind:
        return raw
    raise ValueError(f"{where}: expected a {'finite number' if kind is float else kind.__name__}, got {raw!r}")


def _build_section(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: expected keys and values, got {raw!r}")
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(map(str, raw)) - set(known)):
        raise ValueError(f"{where}: unknown key '{unknown[0]}'; known are {', '.join(known)}")
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in raw]:
        raise ValueError(f"{where}: '{missing[0]}' is missing")
    hints = get_type_hints(kind)
    return kind(**{name: _build(hints[name], value, f"{where}: {name}") for name, value in raw.items()})
