"""The arm and the gripper of a URDF: which joints they have, in order, with limits. Units: rad or m, seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pirl_ros.control.kinematics import transform
from pirl_ros.description.joint_limits import StatedLimits
from pirl_ros.description.urdf import MOVING, Urdf, UrdfJoint
from pirl_ros.profile.sections import Finger, Joint, JointOrigin, KinematicTable, Origin

RAMP_S = 1.0
"""how long a joint takes to full speed where no acceleration is stated"""
JERK_S = 0.1
"""how long it takes to full acceleration where no jerk is stated"""
_GIMBAL = 1e-9
_TOOL = re.compile(r"tcp|tool|eef|ee_|grasp")
"""how tool centres are often called: these are listed first"""


@dataclass(frozen=True)
class Gripper:
    """Fingers of the profile; the first is commanded."""

    joints: tuple[Finger, ...]
    slides: bool
    followers: tuple[str, ...]
    """joints that mimic the commanded one and were not asked for"""


@dataclass(frozen=True)
class Arm:
    """What a URDF gives to a robot profile."""

    robot: str
    tip: str
    joints: tuple[Joint, ...]
    kinematics: KinematicTable
    gripper: Gripper | None
    """None: the URDF has none"""
    folded: int
    """fixed joints that went into origins"""
    assumed: tuple[str, ...] = field(default=())
    """arm joints whose acceleration or jerk is assumed"""


def find_arm(
    urdf: Urdf, tip: str | None, base: str | None, gripper: Sequence[str], limits: Mapping[str, StatedLimits]
) -> Arm:
    """Return the arm from link `base` (None: the root) to link `tip` (None: the only end).

    `gripper`: joints of its fingers, the commanded one first; empty: the only one beyond the arm. `limits`: of
    MoveIt's file. Raises ValueError in one line that names the choice, the limit that is missing, and the fix.
    """
    base, tip = base or urdf.root, tip or _only_tip(urdf)
    path = urdf.path(base, tip)
    moving = [joint for joint in path if joint.moves]
    if not moving:
        raise ValueError(f"no joint moves between '{base}' and '{tip}': {_tips(urdf)}")
    for joint in moving:
        _check_arm_joint(joint, gripper)
    joints = {joint.name: _limited(joint, limits.get(joint.name, StatedLimits())) for joint in moving}
    if limits and not any(name in limits for name in joints):
        raise ValueError(f"--limits has none of the arm's joints {', '.join(joints)}; it has {', '.join(limits)}")
    stated = (limits.get(name, StatedLimits()) for name in joints)
    assumed = [name for name, each in zip(joints, stated) if each.acceleration is None or each.jerk is None]
    return Arm(
        urdf.name,
        tip,
        tuple(joints.values()),
        _table(base, path),
        _gripper(urdf, moving, gripper, limits),
        len(path) - len(moving),
        tuple(assumed),
    )


def _only_tip(urdf: Urdf) -> str:
    if len(urdf.leaves) == 1:
        return urdf.leaves[0]
    raise ValueError(f"the URDF has {len(urdf.leaves)} ends: {_tips(urdf)}")


def _tips(urdf: Urdf) -> str:
    """The choices, each with how many joints move before it; links in the middle may be chosen as well."""
    counts = [sum(joint.moves for joint in urdf.path(urdf.root, link)) for link in urdf.leaves]
    choices = sorted(zip(urdf.leaves, counts), key=lambda choice: (not _TOOL.search(choice[0].lower()), -choice[1]))
    named = ", ".join(f"{link} ({count} joints)" for link, count in choices[:16])
    return f"name the tool centre by --tip LINK. Ends are {named}; a link before them will do as well"


def _check_arm_joint(joint: UrdfJoint, gripper: Sequence[str]) -> None:
    if joint.type not in MOVING:
        raise ValueError(f"joint '{joint.name}' is {joint.type}: give the link behind it as --base")
    if joint.mimic is not None:
        raise ValueError(
            f"joint '{joint.name}' mimics '{joint.mimic.joint}' and lies on the way to the tip: give '{joint.parent}'"
            " or a link before it as --tip; an arm whose joints are coupled cannot be described"
        )
    if joint.name in gripper:
        raise ValueError(f"the tip moves with the gripper's '{joint.name}': give '{joint.parent}' as --tip")


def _limited(joint: UrdfJoint, stated: StatedLimits) -> Joint:
    """Of the URDF's limits and the stated ones the tighter; where neither says how fast it gathers speed, slowly."""
    low, high = _range(joint, stated)
    velocity = _speed(joint, stated)
    acceleration = stated.acceleration or velocity / RAMP_S
    return Joint(joint.name, low, high, velocity, acceleration, stated.jerk or acceleration / JERK_S)


def _range(joint: UrdfJoint, stated: StatedLimits) -> tuple[float, float]:
    low, high = joint.low, joint.high
    if joint.type == "continuous":
        # Its driver may report -pi after pi: the range ends where that happens.
        low, high = -math.pi, math.pi
    elif low is None and high is None and stated.low is None and stated.high is None:
        raise ValueError(
            f"joint '{joint.name}' has no position limits: add <limit lower= upper=> to the URDF, or"
            " has_position_limits, min_position and max_position to the file of --limits"
        )
    lows = [value for value in (low, stated.low) if value is not None] or [0.0]
    highs = [value for value in (high, stated.high) if value is not None] or [0.0]
    if not max(lows) < min(highs):
        raise ValueError(f"joint '{joint.name}' has the range {max(lows):g}..{min(highs):g}: correct its limits")
    return max(lows), min(highs)


def _speed(joint: UrdfJoint, stated: StatedLimits) -> float:
    known = [value for value in (joint.velocity, stated.velocity) if value]
    if not known or min(known) <= 0:
        given = "none" if joint.velocity is None else f"{joint.velocity:g}"
        raise ValueError(
            f"joint '{joint.name}' has the velocity limit {given} in the URDF, which is no limit: write that of the"
            " data sheet there, or as has_velocity_limits: true and max_velocity into the file of --limits;"
            " joints before the arm are left out by --base LINK"
        )
    return min(known)


def _table(base: str, path: Sequence[UrdfJoint]) -> KinematicTable:
    """Joint origins with the fixed joints before them; numbers of the file where nothing had to be folded."""
    joints: list[JointOrigin] = []
    fixed: list[Origin] = []
    for joint in path:
        fixed.append(joint.origin)
        if joint.moves:
            origin = _folded(fixed)
            joints.append(JointOrigin(origin.xyz, origin.rpy, joint.axis, joint.type))  # type: ignore[arg-type]
            fixed = []
    return KinematicTable(tuple(joints), _folded(fixed), base, checked=False)


def _folded(origins: Sequence[Origin]) -> Origin:
    moved = [origin for origin in origins if any(origin.xyz) or any(origin.rpy)]
    if len(moved) < 2:
        return moved[0] if moved else Origin((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    pose = np.eye(4)
    for origin in moved:
        pose = pose @ transform(origin)
    return Origin(tuple(pose[:3, 3].tolist()), _roll_pitch_yaw(pose[:3, :3]))


def _roll_pitch_yaw(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """URDF's rpy of a rotation [3, 3]; at a pitch of 90 degrees, where only roll - yaw counts, the yaw is 0."""
    across = math.hypot(rotation[0, 0], rotation[1, 0])
    pitch = math.atan2(-rotation[2, 0], across)
    if across < _GIMBAL:
        return math.atan2(-rotation[1, 2], rotation[1, 1]), pitch, 0.0
    return math.atan2(rotation[2, 1], rotation[2, 2]), pitch, math.atan2(rotation[1, 0], rotation[0, 0])


def _gripper(
    urdf: Urdf, arm: Sequence[UrdfJoint], names: Sequence[str], limits: Mapping[str, StatedLimits]
) -> Gripper | None:
    known = {joint.name: joint for joint in urdf.joints if joint.moves}
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"--gripper: no joint '{missing[0]}' moves in the URDF; {', '.join(known)} do")
    beyond = [joint for joint in known.values() if arm[-1] in urdf.path(urdf.root, joint.parent)]
    leading = list(names) or [joint.name for joint in beyond if joint.mimic is None]
    if not leading:
        return None
    if len(leading) > 1 and not names:
        raise ValueError(
            f"several joints move beyond the arm: name the commanded finger first by --gripper, of {', '.join(leading)}"
        )
    commanded = known[leading[0]]
    if commanded.mimic is not None:
        raise ValueError(
            f"--gripper: '{commanded.name}' mimics '{commanded.mimic.joint}': name that first, it is the one to command"
        )
    followers = (
        j.name for j in known.values() if j.mimic and j.mimic.joint == commanded.name and j.name not in leading
    )
    fingers = tuple(_finger(known[name], known, limits) for name in leading)
    return Gripper(fingers, commanded.type == "prismatic", tuple(followers))


def _finger(joint: UrdfJoint, known: Mapping[str, UrdfJoint], limits: Mapping[str, StatedLimits]) -> Finger:
    """One measured finger; one that mimics another may leave its limits to that one."""
    if joint.mimic is not None and joint.mimic.joint in known and (joint.velocity or 0.0) <= 0:
        led, share = _finger(known[joint.mimic.joint], known, limits), joint.mimic.multiplier
        ends = sorted(share * end + joint.mimic.offset for end in (led.low, led.high))
        return Finger(joint.name, ends[0], ends[1], abs(share) * led.velocity)
    limited = _limited(joint, limits.get(joint.name, StatedLimits()))
    return Finger(limited.name, limited.low, limited.high, limited.velocity)
