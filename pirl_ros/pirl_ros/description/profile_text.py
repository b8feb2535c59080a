"""A robot profile as YAML text, from what a URDF says: complete, and each guess marked as one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pirl_ros.control.kinematics import Chain
from pirl_ros.description.arm import JERK_S, RAMP_S, Arm, Gripper
from pirl_ros.profile.sections import Joint, JointOrigin, Origin

_FLOOR_M = 0.02
"""the lowest wall of the box above the base, where a table is likely"""
_SAMPLES = 500
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_Z = (0.0, 0.0, 1.0)


def profile_text(arm: Arm, source: str, robot: str, rate_hz: float) -> str:
    """Return the text of a profile of robot `robot`; `source` names where the description came from, for its head."""
    parts = (_head(arm, source, robot, rate_hz), _arm(arm), _gripper(arm.gripper), _safety(arm), _kinematics(arm))
    # A name of the URDF may hold a line break, which would end a comment.
    return "".join(" ".join(line.splitlines()) + "\n" for part in parts for line in part)


def _head(arm: Arm, source: str, robot: str, rate_hz: float) -> Iterator[str]:
    yield f"# {arm.robot}, from {source}: positions, velocities and joint origins of the URDF, to its link {arm.tip}."
    if arm.assumed:
        which = "all joints" if len(arm.assumed) == len(arm.joints) else ", ".join(arm.assumed)
        yield f"# No acceleration or no jerk is stated for {which}. Assumed: full speed after"
        yield f"# {RAMP_S:g} s, full acceleration after {JERK_S:g} s."
    yield "# docs/how-to/my-arm-in-30-minutes.md explains the keys; `pirl robot check` names what is still to be done."
    yield f"robot: {_text(robot)}"
    yield f"rate_hz: {_number(rate_hz)} # the rate that the policy was trained with"
    yield "tick: timer"
    yield "reliable_sensors: false # fits every publisher"
    yield ""
    yield "joint_states: joint_states"
    yield "velocities: false # true when your joint states have velocities, and the policy was trained with them"
    yield "action: joint_position"
    yield "# Your controller's name: `ros2 control list_controllers`."
    yield "command: {kind: joint_trajectory, topic: arm_controller/joint_trajectory}"


def _arm(arm: Arm) -> Iterator[str]:
    yield "arm:"
    if arm.assumed:
        yield "  checked: false # acceleration or jerk is assumed: write those of the data sheet, then true"
    yield "  joints:"
    for joint, origin in zip(arm.joints, arm.kinematics.joints):
        notes = {"continuous": " # continuous: within one turn", "prismatic": " # slides: metres"}
        yield f"    - {_joint(joint)}{notes.get(origin.type, '')}"


def _joint(joint: Joint) -> str:
    rates = {key: getattr(joint, key) for key in ("low", "high", "velocity", "acceleration", "jerk")}
    return (
        "{"
        + ", ".join([f"name: {_text(joint.name)}", *(f"{key}: {_number(rate)}" for key, rate in rates.items())])
        + "}"
    )


def _gripper(gripper: Gripper | None) -> Iterator[str]:
    if gripper is None:
        yield "gripper: # the URDF has none: all of this is to be written for yours"
        yield "  checked: false"
        yield "  kind: gripper_command"
        yield "  topic: gripper_controller/gripper_cmd"
        yield from ("  command_joint: gripper", "  closed: 0.0", "  open: 0.04", "  joints: []")
    else:
        commanded = gripper.joints[0]
        yield "gripper:"
        yield "  checked: false # which end is closed is a guess: try it with the gripper empty, then true"
        yield "  topic: gripper_controller/joint_trajectory"
        yield f"  command_joint: {_text(commanded.name)}"
        yield f"  unit: {'m' if gripper.slides else 'rad'}"
        yield f"  closed: {_number(commanded.low)}"
        yield f"  open: {_number(commanded.high)}"
        if gripper.followers:
            yield f"  # It is mimicked by {', '.join(gripper.followers)}: add them if your joint states have them."
        yield "  joints:"
        for finger in gripper.joints:
            limits = f"low: {_number(finger.low)}, high: {_number(finger.high)}, velocity: {_number(finger.velocity)}"
            yield f"    - {{name: {_text(finger.name)}, {limits}}}"
    yield ""
    yield "cameras: [] # each as {name: base, topic: camera/base/color/image_raw, height: 480, width: 640}"
    yield "poses: []"
    yield ""


def _safety(arm: Arm) -> Iterator[str]:
    low, high = _box(arm)
    yield "safety:"
    yield "  speed_scale: 0.1 # raise it when that works"
    yield "  # The middle of what the arm reaches, a little above its base: yours depends on your table."
    yield f"  workspace: {{low: {_list(low)}, high: {_list(high)}}} # m, of the tool centre"
    yield "  # floor: 0.05 # m, no joint may get below it: the table and the arm's half thickness"
    yield "  max_jump: 0.3 # rad or m, target to measured joint"
    yield "  max_chunk_age: 1.0 # s, from the observation to the moment a chunk arrives"
    yield "  max_observation_age: 0.3 # s, of every stream when it is used"
    yield "  slop: 0.05 # s, largest distance between the stamps of one observation"
    yield "  watchdog_s: 0.2"
    yield "  link_loss_s: 0.3"
    yield ""


def _box(arm: Arm) -> tuple[Sequence[float], Sequence[float]]:
    """Corners around nine tenths of random poses on each axis, in centimetres; above the base where it can be."""
    chain = Chain.from_table(arm.kinematics)
    lows, highs = [joint.low for joint in arm.joints], [joint.high for joint in arm.joints]
    poses = np.random.default_rng(0).uniform(lows, highs, (_SAMPLES, len(lows)))
    tools: NDArray[np.float64] = np.array([chain.forward(pose)[0] for pose in poses])
    low, high = np.percentile(tools, 5, axis=0), np.percentile(tools, 95, axis=0)
    if low[2] < _FLOOR_M < high[2] - 0.05:
        low[2] = _FLOOR_M
    # A flat arm, whose tool keeps its height, needs room on both sides of it.
    flat = high - low < 0.02
    low, high = np.where(flat, low - 0.05, low), np.where(flat, high + 0.05, high)
    return np.floor(low * 100 + 1e-6) / 100, np.ceil(high * 100 - 1e-6) / 100  # type: ignore[return-value]


def _kinematics(arm: Arm) -> Iterator[str]:
    yield "kinematics:"
    yield f"  frame: {_text(arm.kinematics.frame)}"
    yield "  checked: false # a URDF may have another zero than your calibration: compare, measure the tool, then true"
    yield "  joints:"
    for origin in arm.kinematics.joints:
        yield f"    - {{{_origin(origin)}}}"
    yield f"  tool: {{{_origin(arm.kinematics.tool)}}}"


def _origin(origin: Origin) -> str:
    parts = [f"xyz: {_list(origin.xyz)}", f"rpy: {_list(origin.rpy)}"]
    if isinstance(origin, JointOrigin):
        parts += [f"axis: {_list(origin.axis)}"] if origin.axis != _Z else []
        parts += [f"type: {origin.type}"] if origin.type != "revolute" else []
    return ", ".join(parts)


def _list(values: Sequence[float]) -> str:
    return "[" + ", ".join(_number(value) for value in values) + "]"


def _number(value: float) -> str:
    """Without an exponent, which YAML 1.1 reads as text when it has no sign; to 1e-12."""
    text = f"{value:.12f}".rstrip("0")
    text += "0" if text.endswith(".") else ""
    return "0.0" if text == "-0.0" else text


def _text(value: str) -> str:
    """In quotes where YAML could read it as something else."""
    words = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
    if _PLAIN.fullmatch(value) and value.lower() not in words:
        return value
    # JSON, but for the line breaks that it leaves as they are.
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(f"\\u{ord(letter):04x}" if letter in "\x85\u2028\u2029" else letter for letter in quoted)
