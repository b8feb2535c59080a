"""The sections of a robot profile, as named in the YAML file. Invalid values raise ValueError.

Units: rad, rad/s, rad/s^2, rad/s^3; metres in place of rad for a joint or finger that slides; seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ActionKind = Literal["tcp_delta", "joint_position", "joint_delta"]
CommandKind = Literal["joint_trajectory", "follow_joint_trajectory", "forward_position", "servo_twist"]
GripperKind = Literal["joint_trajectory", "parallel_gripper_command", "gripper_command"]
JointType = Literal["revolute", "continuous", "prismatic"]
"""revolute: turns about its axis. continuous: the same, and its range is not the arm's but the profile's. prismatic:
slides along its axis, and its limits are m, m/s, m/s^2, m/s^3.
"""
Rule = Literal["sync", "asof", "hold"]
"""Which message of a stream goes into an observation.

sync: the nearest in stamp, at most `slop` away. asof: the newest stamped no later than the others. hold: the newest,
whatever its stamp. Each must have arrived within its age limit.
"""
_SHORTEST_AXIS = 1e-6


@dataclass(frozen=True)
class Finger:
    """One measured joint of the gripper."""

    name: str
    low: float
    high: float
    velocity: float

    def __post_init__(self) -> None:
        if not self.low < self.high or self.velocity <= 0:
            raise ValueError(f"joint {self.name} needs low < high and velocity > 0")


@dataclass(frozen=True)
class Joint(Finger):
    """One joint of the arm with all that the governor keeps."""

    acceleration: float
    jerk: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.acceleration <= 0 or self.jerk <= 0:
            raise ValueError(f"joint {self.name} needs acceleration > 0 and jerk > 0")

    def unlimited(self, unit: Literal["rad", "m"]) -> bool:
        """Whether velocity, acceleration or jerk is beyond any real arm's, in `unit`, so that it limits nothing."""
        velocity, acceleration, jerk = (4.0, 50.0, 5000.0) if unit == "m" else (4 * math.pi, 200.0, 20000.0)
        return self.velocity > velocity or self.acceleration > acceleration or self.jerk > jerk


@dataclass(frozen=True)
class ArmGroup:
    """The arm's joints, in the order of the state."""

    joints: tuple[Joint, ...]
    checked: bool = True
    """false: a part of the limits is assumed, not the maker's; `pirl robot check` warns"""

    def __post_init__(self) -> None:
        if not self.joints:
            raise ValueError("joints: an arm needs at least one")


@dataclass(frozen=True)
class Command:
    """How the arm is commanded, and where: a topic, or the action's name for follow_joint_trajectory."""

    kind: CommandKind
    topic: str
    frame: str = ""
    """servo_twist: frame_id of the twist that is sent, the base frame of the kinematics"""
    joints: tuple[str, ...] = ()
    """forward_position: the controller's joints in its own order; empty: the arm's order"""
    controller_rate_hz: float = 100.0
    """update rate of the controller (controller_manager's update_rate): a trajectory starts two of its cycles ahead"""
    max_linear_speed: float = 0.5
    """m/s of the tool centre, servo_twist only"""
    max_angular_speed: float = 1.5
    """rad/s of the tool centre, servo_twist only"""

    def __post_init__(self) -> None:
        _named(self.topic)
        for name in ("controller_rate_hz", "max_linear_speed", "max_angular_speed"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name):g}")
        if (self.kind == "servo_twist") != bool(self.frame):
            raise ValueError("frame is needed for kind servo_twist and must be empty for the others")
        if self.joints and self.kind != "forward_position":
            raise ValueError("joints is for kind forward_position only: trajectories carry joint names")


@dataclass(frozen=True)
class GripperGroup:
    """The gripper; one joint is commanded: gripper action -1 means `closed`, +1 means `open`.

    kind joint_trajectory follows the action step by step. The two actions are goals, so they are sent for a change
    only: above `open_above` it opens, below `close_below` it closes, in between it stays, and a change must last for
    `settle` seconds before it counts.
    """

    topic: str
    command_joint: str
    closed: float
    open: float
    joints: tuple[Finger, ...]
    kind: GripperKind = "joint_trajectory"
    unit: Literal["m", "rad"] = "m"
    joint_states: str = ""
    """topic of a driver that publishes the gripper's joints on their own; empty: they are in the arm's joint states"""
    max_effort: float = 0.0
    """N or Nm, for the two actions; 0 leaves it to the driver"""
    open_above: float = 0.2
    close_below: float = -0.2
    settle: float = 0.1
    velocity: float = 0.0
    """unit/s of command_joint; 0: that of its entry in `joints`"""
    checked: bool = True
    """false: `closed`, `open` or the topic are guesses; `pirl robot check` warns"""

    @property
    def velocity_limit(self) -> float:
        """Largest speed of command_joint in unit/s, before safety.speed_scale; 0: not known, its driver's business."""
        own = (joint.velocity for joint in self.joints if joint.name == self.command_joint)
        return self.velocity or next(own, 0.0)

    def __post_init__(self) -> None:
        _named(self.topic)
        # A finger's target may lie beyond what is measured: that is how a thin object is pressed.
        if self.joints and self.command_joint not in [joint.name for joint in self.joints]:
            raise ValueError(f"command_joint '{self.command_joint}' is not in gripper.joints")
        if self.velocity < 0 or (self.kind == "joint_trajectory" and self.velocity_limit == 0):
            raise ValueError(
                f"velocity {self.velocity:g}: needs the speed limit of {self.command_joint} in {self.unit}/s,"
                " or an entry of that joint in gripper.joints"
            )
        if self.closed == self.open:
            raise ValueError("closed and open must differ")
        if not -1 <= self.close_below < self.open_above <= 1:
            raise ValueError("close_below must be under open_above, both in [-1, 1]")
        if self.settle < 0 or self.max_effort < 0:
            raise ValueError("settle and max_effort must not be below 0")


@dataclass(frozen=True)
class CameraTopic:
    """One camera and the topic it is published on: Image, or CompressedImage when `compressed`."""

    name: str
    topic: str
    height: int
    width: int
    compressed: bool = False
    rule: Rule = "sync"
    max_age: float = 0.0
    """s; 0: safety.max_observation_age"""

    def __post_init__(self) -> None:
        _named(self.topic)
        if self.height < 1 or self.width < 1 or self.max_age < 0:
            raise ValueError(f"camera {self.name} needs a height and width above 0 and no negative max_age")


@dataclass(frozen=True)
class PoseTopic:
    """One PoseStamped topic; gives xyz + wxyz to the state, or xyz only."""

    name: str
    topic: str
    position_only: bool = False
    rule: Rule = "sync"
    max_age: float = 0.0
    frame: str = ""
    """frame_id that its messages must have; empty: any"""

    def __post_init__(self) -> None:
        _named(self.topic)
        if self.max_age < 0:
            raise ValueError("max_age must not be below 0")


@dataclass(frozen=True)
class WrenchTopic:
    """One WrenchStamped topic; gives force xyz and torque xyz to the state."""

    name: str
    topic: str
    force: float
    """N, measuring range of each axis: part of the contract"""
    torque: float
    """Nm"""
    rule: Rule = "sync"
    max_age: float = 0.0
    frame: str = ""
    """frame_id that its messages must have; empty: any"""

    def __post_init__(self) -> None:
        _named(self.topic)
        if self.force <= 0 or self.torque <= 0 or self.max_age < 0:
            raise ValueError(f"wrench {self.name} needs force and torque above 0 and no negative max_age")


@dataclass(frozen=True)
class Box:
    """Two corners in metres, in the base frame of the kinematics."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        _three("low", self.low)
        _three("high", self.high)
        if not all(low < high for low, high in zip(self.low, self.high)):
            raise ValueError(f"low {list(self.low)} must be under high {list(self.high)} on each axis")


@dataclass(frozen=True)
class SafetyLimits:
    """What the governor and the synchroniser reject."""

    workspace: Box
    """where the tool centre may be"""
    max_jump: float
    """largest distance of a joint target from the measured joint"""
    max_chunk_age: float
    """from the observation to the moment a chunk arrives"""
    max_observation_age: float
    slop: float
    """largest distance between the stamps of one observation"""
    watchdog_s: float
    """longest silence of the measured state before the arm is brought to rest"""
    link_loss_s: float = 0.3
    """how long the checked rest of a chunk is played on when no newer one comes"""
    speed_scale: float = 1.0
    floor: float = -math.inf
    """m, height that neither joints nor straight lines between them may get below, in each arm's base frame; or none"""

    def __post_init__(self) -> None:
        names = ("max_jump", "max_chunk_age", "max_observation_age", "watchdog_s", "link_loss_s", "speed_scale")
        for name in names:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        if self.slop < 0:
            raise ValueError("slop must not be below 0")


@dataclass(frozen=True)
class Origin:
    """A fixed transform as URDF writes it: metres and roll, pitch, yaw in radians."""

    xyz: tuple[float, ...]
    rpy: tuple[float, ...]

    def __post_init__(self) -> None:
        _three("xyz", self.xyz)
        _three("rpy", self.rpy)


@dataclass(frozen=True)
class JointOrigin(Origin):
    """Where a joint is in the frame of the one before it, fixed joints between them included, and how it moves."""

    axis: tuple[float, ...] = (0.0, 0.0, 1.0)
    """what it turns about or slides along, in its own frame; of any length above 0"""
    type: JointType = "revolute"

    def __post_init__(self) -> None:
        super().__post_init__()
        _three("axis", self.axis)
        if not math.sqrt(sum(value * value for value in self.axis)) > _SHORTEST_AXIS:
            raise ValueError(f"axis {list(self.axis)} has no direction: copy <axis xyz=...> from the URDF")


@dataclass(frozen=True)
class KinematicTable:
    """Origin of each arm joint in the frame before it, and of the tool centre in the last joint's frame."""

    joints: tuple[JointOrigin, ...]
    tool: Origin
    frame: str = ""
    """frame_id of the base frame, in which twists are given; empty: command.frame"""
    checked: bool = True
    """false: not compared with the arm yet; `pirl robot check` warns"""


@dataclass(frozen=True)
class ArmSection:
    """One arm of a robot with several: what a robot with one arm has at the top of its profile."""

    name: str
    """in front of the names of its tool's and its gripper's entries"""
    joints: tuple[Joint, ...]
    command: Command
    gripper: GripperGroup
    workspace: Box
    """where its tool centre may be, in its own base frame"""
    kinematics: KinematicTable
    checked: bool = True
    """as of `arm`"""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name '{self.name}' must be letters, digits and underscores")
        if not self.joints:
            raise ValueError("joints: an arm needs at least one")
        if self.gripper.joint_states:
            raise ValueError("gripper.joint_states: joints of several arms come on one topic: remap it, leave this out")


@dataclass(frozen=True)
class BaseSection:
    """A mobile base that is driven by velocities."""

    topic: str
    """of its controller (geometry_msgs/TwistStamped)"""
    linear: float
    """m/s along each axis: range of the action's entries, and the most that is sent"""
    angular: float
    """rad/s about z, likewise"""
    frame: str = "base_link"
    """frame_id of the twist"""
    sideways: bool = False
    """whether it moves along y too"""
    timeout: float = 0.3
    """s after the last command until zero is sent"""

    def __post_init__(self) -> None:
        _named(self.topic)
        for name in ("linear", "angular", "timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name):g}")


def _three(name: str, values: Sequence[float]) -> None:
    if len(values) != 3:
        raise ValueError(f"{name} needs three numbers, got {list(values)}")


def _named(topic: str) -> None:
    if not topic:
        raise ValueError("topic is empty")
