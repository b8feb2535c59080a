"""Action spaces to try on an arm of seven joints, and what their tool entries mean, read with SciPy."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from pirl_ros.profile.action_parts import ROTATION_NAMES, ActionPart
from pirl_ros.profile.profile import Profile

GRIPPER = ActionPart("gripper")
STEP, TURN, REACH = 0.02, 0.1, 1.0
ROTATIONS = ("none", "axis_angle", "euler_xyz", "quaternion", "rotation_6d")


def tool(kind: str, rotation: str, **keys: object) -> ActionPart:
    """A tool part with the sizes above."""
    far = kind == "tool_pose" or keys.get("counts_from") == "observation"
    turn = 0.0 if rotation == "none" else TURN
    return ActionPart(kind, rotation=rotation, step=STEP, turn=turn, reach=REACH if far else 0.0, **keys)  # type: ignore[arg-type]


def spaces() -> dict[str, tuple[ActionPart, ...]]:
    """Every kind, representation, frame and anchor, mixes, and what known families of checkpoints use."""
    found = {f"tool_pose {rotation}": (tool("tool_pose", rotation), GRIPPER) for rotation in ROTATIONS}
    for rotation, frame, anchor in itertools.product(
        ROTATIONS, ("base", "tool"), ("measured", "command", "observation")
    ):
        part = tool("tool_delta", rotation, frame=frame, counts_from=anchor)
        found[f"tool_delta {rotation} {frame} {anchor}"] = (part, GRIPPER)
    found["joint_position"] = (ActionPart("joint_position"), GRIPPER)
    found["joint_velocity"] = (ActionPart("joint_velocity"), GRIPPER)
    for anchor in ("measured", "command", "observation"):
        found[f"joint_delta {anchor}"] = (ActionPart("joint_delta", counts_from=anchor), GRIPPER)  # type: ignore[arg-type]
    elbow = ActionPart("joint_position", joints=("panda_joint3",))
    found["gripper first, pose and a joint"] = (GRIPPER, elbow, tool("tool_pose", "axis_angle"))
    found["velocities and positions"] = (
        ActionPart("joint_velocity", joints=tuple(f"panda_joint{n}" for n in (1, 2, 3, 4))),
        ActionPart("gripper", closed=1.0, open=0.0),
        ActionPart("joint_position", joints=tuple(f"panda_joint{n}" for n in (5, 6, 7))),
    )
    return found | families()


def families() -> dict[str, tuple[ActionPart, ...]]:
    """As docs/how-to/action-spaces.md has them."""
    return {
        "LIBERO": (
            ActionPart("tool_delta", rotation="axis_angle", step=0.05, turn=0.5, normalised=True),
            ActionPart("gripper", closed=1.0, open=-1.0),
        ),
        "Bridge": (
            ActionPart("tool_delta", rotation="euler_xyz", counts_from="command", step=0.05, turn=0.25),
            ActionPart("gripper", closed=0.0, open=1.0),
        ),
        "DROID": (
            ActionPart("joint_velocity", limit=3.0, normalised=True),
            ActionPart("gripper", closed=1.0, open=0.0),
        ),
    }


def with_space(profile: Profile, parts: tuple[ActionPart, ...]) -> Profile:
    """The same robot with another action."""
    return replace(profile, action=parts, tcp_step=0.0)


def sizes(parts: tuple[ActionPart, ...], joints: int = 7) -> list[int]:
    """Entries of each part."""
    widths = []
    for part in parts:
        if part.of_tool:
            widths.append(3 + len(ROTATION_NAMES[part.rotation]))
        else:
            widths.append(1 if part.kind == "gripper" else len(part.joints) or joints)
    return widths


def turn(values: np.ndarray, rotation: str) -> Rotation:
    """The rotation that these entries name."""
    match rotation:
        case "axis_angle":
            return Rotation.from_rotvec(values)
        case "euler_xyz":
            return Rotation.from_euler("xyz", values)
        case "quaternion":
            return Rotation.from_quat(np.roll(values, -1))
        case "rotation_6d":
            first, second = values[:3] / np.linalg.norm(values[:3]), values[3:]
            second = second - (first @ second) * first
            second /= np.linalg.norm(second)
            return Rotation.from_matrix(np.stack([first, second, np.cross(first, second)], axis=1))
    return Rotation.identity()


def written(rotation: Rotation, representation: str) -> np.ndarray:
    """How a rotation is written."""
    match representation:
        case "axis_angle":
            return rotation.as_rotvec()
        case "euler_xyz":
            return rotation.as_euler("xyz")
        case "quaternion":
            return np.roll(rotation.as_quat(), 1)
        case "rotation_6d":
            return rotation.as_matrix()[:, :2].T.ravel()
    return np.zeros(0)


def meant(part: ActionPart, values: np.ndarray, start: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, Rotation]:
    """The pose that tool entries name, counted from `start`."""
    at, facing = start[0], Rotation.from_matrix(start[1])
    if part.normalised:
        values = values * np.repeat([part.step, part.turn], [3, len(values) - 3])
    if part.kind == "tool_pose":
        return values[:3], turn(values[3:], part.rotation) if part.rotation != "none" else facing
    if part.frame == "tool":
        return at + facing.apply(values[:3]), facing * turn(values[3:], part.rotation)
    return at + values[:3], turn(values[3:], part.rotation) * facing
