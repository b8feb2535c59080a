"""The `action` section of a robot profile as a list: what each entry of an action vector means, part by part.

A part is some consecutive entries of the action: a pose of the tool centre, joints, or a gripper. Everything that
changes what a number means is in the entry's name, unit or range, so that two robots that mean different things never
have one contract. Units: m and rad per control period, rad/s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from pirl_contract import Field
from pirl_ros.profile.sections import BaseSection, Joint

PartKind = Literal[
    "tool_pose", "tool_delta", "joint_position", "joint_delta", "joint_velocity", "gripper", "base_velocity"
]  # fmt: skip
Rotation = Literal["", "none", "axis_angle", "euler_xyz", "quaternion", "rotation_6d"]
Anchor = Literal["", "measured", "command", "observation"]
"""What a delta counts from.

measured: the arm as it is measured in the period that plays the action. command: where the action before was to lead.
observation: the arm at the observation that the chunk answers, for all actions of the chunk.
"""

ROTATION_NAMES: dict[str, tuple[str, ...]] = {
    "none": (),
    "axis_angle": ("rx", "ry", "rz"),
    "euler_xyz": ("roll", "pitch", "yaw"),
    "quaternion": ("qw", "qx", "qy", "qz"),
    "rotation_6d": ("xx", "xy", "xz", "yx", "yy", "yz"),
}
"""Entries of each representation.

axis_angle: axis times angle. euler_xyz: about x, then y, then z of the fixed frame, as URDF's rpy. quaternion: w first.
rotation_6d: the first two columns of the rotation matrix, the tool's x axis and its y axis (Zhou et al. 2019).
"""
_ANGLES = ("axis_angle", "euler_xyz")
_TOOL = frozenset({"rotation", "step", "turn", "arm"})
_KEYS: dict[str, frozenset[str]] = {
    "tool_pose": _TOOL | {"reach"},
    "tool_delta": _TOOL | {"reach", "frame", "counts_from", "normalised"},
    "joint_position": frozenset({"joints", "arm"}),
    "joint_delta": frozenset({"joints", "arm", "counts_from", "limit", "normalised"}),
    "joint_velocity": frozenset({"joints", "arm", "limit", "normalised"}),
    "gripper": frozenset({"arm", "closed", "open"}),
    "base_velocity": frozenset(),
}
_DEFAULT_ANCHOR: dict[str, Anchor] = {"tool_delta": "measured", "joint_delta": "observation"}
_LARGEST_TURN = math.pi / 2


@dataclass(frozen=True)
class ActionPart:
    """Some entries of the action vector. ValueError names a key that the kind needs or does not know.

    tool_pose: where the tool centre is to be, in the base frame. tool_delta: its way from `counts_from`.
    joint_position, joint_delta, joint_velocity: one entry per joint. gripper: one entry. base_velocity: m/s along x,
    along y where the base moves sideways, and rad/s about z, in the frame of the base.
    """

    kind: PartKind
    arm: str = ""
    """name of the arm, for a robot with several"""
    joints: tuple[str, ...] = ()
    """joint kinds: which of the arm's joints, in this order; empty: all"""
    rotation: Rotation = ""
    """tool kinds: how the rotation is written; none: the orientation is kept"""
    frame: Literal["base", "tool"] = "base"
    """tool_delta: axes along which it moves and turns, those of the base or those of the tool it counts from"""
    counts_from: Anchor = ""
    """tool_delta: measured unless given; joint_delta: observation unless given"""
    step: float = 0.0
    """tool kinds: m per control period. Range of the entries of a delta per period, else the largest way"""
    turn: float = 0.0
    """tool kinds: rad per control period, likewise"""
    reach: float = 0.0
    """m, range of the position entries of tool_pose, and of tool_delta from the observation"""
    limit: float = 0.0
    """rad/s of joint_velocity, rad of joint_delta (m of one that slides): range of each entry; 0: the joint's own"""
    normalised: bool = False
    """entries of -1 to 1 that stand for the range, instead of entries in m and rad"""
    closed: float = -1.0
    """gripper: the entry that closes it"""
    open: float = 1.0
    """gripper: the entry that opens it"""

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name) != field.default
            if field.name != "kind" and given and field.name not in _KEYS[self.kind]:
                known = ", ".join(sorted(_KEYS[self.kind]))
                raise ValueError(f"{field.name} means nothing to kind {self.kind}, which knows {known}")
        for name in ("step", "turn", "reach", "limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0, got {getattr(self, name):g}")
        if self.of_tool:
            self._check_tool()
        if self.normalised and self.anchor == "observation":
            raise ValueError("normalised is for deltas per control period: not for counts_from observation")
        if self.kind == "joint_delta" and self.normalised and not self.limit:
            raise ValueError("limit is missing: the rad per control period that a normalised entry of 1 stands for")
        if self.kind == "gripper" and self.closed == self.open:
            raise ValueError(f"closed and open must differ, both are {self.open:g}")

    def _check_tool(self) -> None:
        if not self.rotation:
            raise ValueError(f"rotation is missing: one of {', '.join(ROTATION_NAMES)}")
        if not self.step:
            raise ValueError("step is missing: the largest way of the tool in m per control period")
        if (self.rotation == "none") != (self.turn == 0) or self.turn > _LARGEST_TURN:
            raise ValueError(
                f"turn {self.turn:g}: needs the largest rotation in rad per control period, up to {_LARGEST_TURN:.2f},"
                " and nothing for rotation none"
            )
        if (self.reach > 0) != self.absolute:
            raise ValueError(
                f"reach {self.reach:g}: needs the range of the position entries in m for tool_pose and for counts_from"
                " observation, and nothing else"
            )

    @property
    def of_tool(self) -> bool:
        """Whether it moves the tool centre."""
        return self.kind in ("tool_pose", "tool_delta")

    @property
    def of_joints(self) -> bool:
        """Whether it has one entry per joint."""
        return self.kind.startswith("joint")

    @property
    def anchor(self) -> Anchor:
        """What its entries count from; empty: nothing, they are absolute or a velocity."""
        return self.counts_from or _DEFAULT_ANCHOR.get(self.kind, "")

    @property
    def absolute(self) -> bool:
        """Whether its tool entries name a pose that may lie many periods away."""
        return self.kind == "tool_pose" or (self.kind == "tool_delta" and self.anchor == "observation")

    @property
    def opens_upwards(self) -> bool:
        """Whether a larger gripper entry opens it."""
        return self.open > self.closed


def entries(part: ActionPart, joints: Sequence[tuple[str, Joint]], prefix: str = "") -> tuple[Field, ...]:
    """Return the contract's entries of one part.

    `joints`: those that it names, in order, each behind the unit of its position; `prefix`: of its arm.
    """
    if part.kind == "gripper":
        name = f"{prefix}gripper" if part.opens_upwards else f"{prefix}gripper.closing"
        return (Field(name, "1", min(part.closed, part.open), max(part.closed, part.open)),)
    if part.of_tool:
        return _tool_entries(part, prefix)
    return tuple(_joint_entry(part, unit, joint) for unit, joint in joints)


def base_entries(base: BaseSection) -> tuple[Field, ...]:
    """Return the contract's entries of the part base_velocity."""
    along = ("x", "y") if base.sideways else ("x",)
    linear = [Field(f"base_v{axis}", "m/s", -base.linear, base.linear) for axis in along]
    return (*linear, Field("base_wz", "rad/s", -base.angular, base.angular))


def _tool_entries(part: ActionPart, prefix: str) -> tuple[Field, ...]:
    assert part.rotation
    d = "d" if part.kind == "tool_delta" else ""
    end = ".in_tool" if part.frame == "tool" else ""
    end += f".from_{part.anchor}" if part.anchor in ("command", "observation") else ""
    way = part.reach if part.absolute else part.step
    angle = math.pi if part.absolute else part.turn
    unit, bound = ("rad", angle) if part.rotation in _ANGLES else ("1", 1.0)
    positions = [_entry(f"{prefix}tcp_{d}{axis}{end}", "m", way, part.normalised) for axis in "xyz"]
    scaled = part.normalised and part.rotation in _ANGLES
    names = ROTATION_NAMES[part.rotation]
    return (*positions, *(_entry(f"{prefix}tcp_{d}{name}{end}", unit, bound, scaled) for name in names))


def _joint_entry(part: ActionPart, unit: str, joint: Joint) -> Field:
    if part.kind == "joint_position":
        return Field(f"{joint.name}.target", unit, joint.low, joint.high)
    if part.kind == "joint_velocity":
        return _entry(f"{joint.name}.velocity", f"{unit}/s", part.limit or joint.velocity, part.normalised)
    # All deltas of a chunk count from the joints of its observation: the last may be as large as the joint's way.
    end = "" if part.anchor == "observation" else f".from_{part.anchor}"
    return _entry(f"{joint.name}.delta{end}", unit, part.limit or joint.high - joint.low, part.normalised)


def _entry(name: str, unit: str, bound: float, normalised: bool) -> Field:
    """A normalised entry has its scale in the unit: 1 of "0.05 m" is 0.05 m."""
    return Field(name, f"{bound:.9g} {unit}", -1.0, 1.0) if normalised else Field(name, unit, -bound, bound)


def parts_of(kind: Literal["tcp_delta", "joint_position", "joint_delta"], tcp_step: float) -> tuple[ActionPart, ...]:
    """Return the parts that a word for `action` stands for. `tcp_step` in m."""
    words: dict[str, ActionPart] = {
        "tcp_delta": ActionPart("tool_delta", rotation="none", step=tcp_step or 1.0),
        "joint_position": ActionPart("joint_position"),
        "joint_delta": ActionPart("joint_delta"),
    }
    return words[kind], ActionPart("gripper")
