"""Errors and warnings of a valid robot profile. Each finding names the key and the fix."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from pirl_ros.control.floor import Floor
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import Joint

MAX_OBSERVATION_BYTES = 16 * 1024 * 1024
"""what a request to the server may hold: raw images travel in it"""
_QUATERNION_JOINTS = 6
_SWIFT_M_S = 1.0
_SWIFT_RAD_S = 3.0
_SAMPLES = 256


@dataclass(frozen=True)
class Finding:
    """One remark: an error keeps the robot from working or from being safe, a warning is to be read."""

    key: str
    text: str
    error: bool = False


@dataclass(frozen=True)
class Braking:
    """The worst joint's way to rest from full speed, as the profile's limits allow it."""

    joint: str
    seconds: float
    angle: float
    """rad or m moved from the moment nothing comes any more: the remainder of a chunk, then braking"""
    slides: bool = False

    @property
    def way(self) -> str:
        """How far it moves, with its unit."""
        return f"{self.angle:.2f} m" if self.slides else f"{math.degrees(self.angle):.0f} degrees"


def find_all(profile: Profile) -> list[Finding]:
    """Return errors first, then warnings."""
    found = [*_times(profile), *_streams(profile)]
    for single in profile.singles:
        arm = f"arms, {single.robot.removeprefix(profile.robot).strip()}: " if profile.arms else ""
        for finding in itertools.chain(_kinematics(single), _limits(single), _outputs(single)):
            found.append(replace(finding, key=arm + finding.key))
    return sorted(found, key=lambda finding: not finding.error)


def mid_range(profile: Profile) -> Array:
    """Return the middle of each arm joint's range [J]."""
    return np.array([(joint.low + joint.high) / 2 for joint in profile.arm.joints])


def braking(profile: Profile) -> Braking:
    """Work out the worst joint at its limits; the acceleration while braking is a trapezoid, or a triangle."""
    worst = Braking("", 0.0, -1.0)
    for unit, joint in zip(profile.arm_units, profile.arm.joints):
        speed = joint.velocity * profile.safety.speed_scale
        ramp_s = joint.acceleration / joint.jerk
        if speed < joint.acceleration * ramp_s:
            ramp_s = math.sqrt(speed / joint.jerk)
        # Symmetric in time, so the mean speed while braking is half the speed.
        seconds = speed / (joint.jerk * ramp_s) + ramp_s
        angle = speed * (profile.safety.link_loss_s + seconds / 2)
        if angle > worst.angle:
            worst = Braking(joint.name, seconds, angle, unit == "m")
    return worst


def _kinematics(profile: Profile) -> Iterator[Finding]:
    chain, box = Chain.from_table(profile.kinematics), profile.safety.workspace
    low, high = np.array(box.low), np.array(box.high)
    middle = chain.forward(mid_range(profile))[0]
    if not ((low <= middle) & (middle <= high)).all():
        where = ", ".join(f"{value:.3f}" for value in middle)
        yield Finding("safety.workspace", f"the tool is at ({where}) m with all joints in mid range: outside the box")
    share = _share_inside(profile, chain, low, high)
    if share == 0.0:
        yield Finding(
            "safety.workspace", "no sampled pose lies inside the box: give it in metres, in the base frame", True
        )
    elif share == 1.0:
        yield Finding("safety.workspace", "the box contains the whole reach of the arm, so it limits nothing")
    if profile.safety.floor > -math.inf:
        yield from _floor(profile, chain)
    if not profile.base_frame:
        yield Finding("kinematics.frame", "empty: only a twist without a frame_id can be followed; name the base frame")
    if not profile.kinematics.checked:
        yield Finding(
            "kinematics.checked",
            "false: compare the poses above with your arm (tf2_echo), measure kinematics.tool, then set true",
        )
    if profile.action == "tcp_delta" and len(profile.arm.joints) < _QUATERNION_JOINTS:
        count = len(profile.arm.joints)
        yield Finding(
            "action", f"tcp_delta keeps the tool's orientation, {count} joints cannot do that: use joint_position", True
        )
    if not any(origin.xyz != (0.0, 0.0, 0.0) for origin in profile.kinematics.joints):
        yield Finding("kinematics.joints", "all origins are at 0: copy xyz and rpy of each joint from the URDF", True)


def _floor(profile: Profile, chain: Chain) -> Iterator[Finding]:
    floor = Floor(profile.safety.floor, chain)
    if not any(floor.clearance(pose) >= 0 for pose in _poses(profile)):
        yield Finding("safety.floor", "no sampled pose has all joints above it: give metres, in the base frame", True)
    elif (beneath := -floor.clearance(mid_range(profile))) > 0:
        yield Finding("safety.floor", f"with all joints in mid range one is {beneath:.3f} m below it")


def _poses(profile: Profile) -> Array:
    """Random poses [N, J]; the seed is fixed, so that a check repeats."""
    joints = profile.arm.joints
    lows, highs = [joint.low for joint in joints], [joint.high for joint in joints]
    return np.random.default_rng(0).uniform(lows, highs, (_SAMPLES, len(joints)))


def _share_inside(profile: Profile, chain: Chain, low: Array, high: Array) -> float:
    """Share of random poses whose tool centre is in the box."""
    tools = np.array([chain.forward(pose)[0] for pose in _poses(profile)])
    return float(((tools >= low) & (tools <= high)).all(axis=1).mean())


def _limits(profile: Profile) -> Iterator[Finding]:
    safety = profile.safety
    if not profile.arm.checked:
        yield Finding("arm.checked", "false: limits of the arm are assumed: replace them by the maker's, then set true")
    if not profile.gripper.checked:
        yield Finding("gripper.checked", "false: try topic, `closed` and `open` with the gripper empty, then set true")
    if profile.simulation_only:
        reasons = "; ".join(profile.simulation_only)
        yield Finding("use_sim_time", f"arm_node activates under simulated time only: {reasons}")
    if safety.speed_scale > 1:
        yield Finding(
            "safety.speed_scale", f"{safety.speed_scale:g} lets targets run ahead of the joints: for simulation only"
        )
    units = dict(zip((joint.name for joint in profile.arm.joints), profile.arm_units))
    doubts: dict[str, Callable[[Joint], bool]] = {
        "the range exceeds two turns, so it limits nothing": lambda j: j.high - j.low > 4 * math.pi + 0.1,
        "velocity, acceleration or jerk is beyond any real arm": lambda j: j.unlimited(units[j.name]),
        "accelerating to full speed and stopping takes more than the whole range": lambda j: (
            (j.velocity * safety.speed_scale) ** 2 / j.acceleration > j.high - j.low
        ),
    }
    for text, doubtful in doubts.items():
        if names := [joint.name for joint in profile.arm.joints if doubtful(joint)]:
            yield Finding("arm.joints", f"{', '.join(names)}: {text}")
    for part in profile.action_parts:
        speed, turning = part.step * profile.rate_hz, part.turn * profile.rate_hz
        word = "tcp_step" if isinstance(profile.action, str) else "action, step"
        if part.of_tool and speed > _SWIFT_M_S:
            yield Finding(word, f"{part.step:g} m at {profile.rate_hz:g} Hz is {speed:.1f} m/s")
        if turning > _SWIFT_RAD_S:
            yield Finding("action, turn", f"{part.turn:g} rad at {profile.rate_hz:g} Hz is {turning:.1f} rad/s")
    if safety.max_jump > 1.0:
        yield Finding(
            "safety.max_jump", f"{safety.max_jump:g} rad or m between arm and target is too large to be a limit"
        )


def _times(profile: Profile) -> Iterator[Finding]:
    safety, period = profile.safety, 1.0 / profile.rate_hz
    names = ("max_chunk_age", "max_observation_age", "watchdog_s")
    for name in names:
        if getattr(safety, name) < period:
            yield Finding(f"safety.{name}", f"below one control period ({period:.3f} s): nothing would play", True)
    if safety.slop > safety.max_observation_age:
        yield Finding("safety.slop", "above max_observation_age: such streams are rejected as stale first", True)
    for name, largest in (
        ("watchdog_s", 1.0),
        ("link_loss_s", 1.0),
        ("max_observation_age", 1.0),
        ("max_chunk_age", 2.0),
    ):
        if getattr(safety, name) > largest:
            yield Finding(f"safety.{name}", f"{getattr(safety, name):g} s without a message is long for a real arm")
    for brake in map(braking, profile.singles):
        if brake.angle > 1.0:
            yield Finding(
                "safety",
                f"{brake.joint} moves by {brake.way} after the last chunk: lower speed_scale or link_loss_s",
            )
    if profile.rate_hz > 100:
        yield Finding("rate_hz", f"{profile.rate_hz:g} Hz is more than a Python timer can keep")


def _streams(profile: Profile) -> Iterator[Finding]:
    size = sum(3 * camera.height * camera.width for camera in profile.cameras)
    if size > MAX_OBSERVATION_BYTES:
        text = (
            f"{size / 2**20:.0f} MiB per observation, the server accepts {MAX_OBSERVATION_BYTES >> 20}: publish smaller"
        )
        yield Finding("cameras", text, True)
    if any(camera.compressed for camera in profile.cameras) and importlib.util.find_spec("cv2") is None:
        yield Finding("cameras", "compressed, and OpenCV is not installed here: apt install python3-opencv", True)
    topics = [camera.topic for camera in profile.cameras] + [pose.topic for pose in profile.poses]
    for topic, count in Counter(topics).items():
        if count > 1:
            yield Finding("cameras, poses", f"topic '{topic}' is used {count} times", True)
    own = [topic for each in profile.singles for topic in (each.command.topic, each.gripper.topic)]
    named = [profile.joint_states, *own, *topics]
    if absolute := [topic for topic in named if topic.startswith("/")]:
        yield Finding("topics", f"'{absolute[0]}' is absolute: a second robot in another namespace would share it")
    if not all(single.gripper.joints for single in profile.singles):
        yield Finding("gripper.joints", "empty: the gripper state is not part of the observation")


def _outputs(profile: Profile) -> Iterator[Finding]:
    if profile.command.kind == "forward_position":
        yield Finding("command.kind", "forward_position has no time-out: it holds the last command forever")
    if profile.tick == "joint_states" and profile.command.kind != "joint_trajectory":
        yield Finding(
            "tick", "joint_states is for an arm that advances with its joint states, like the simulated one: use timer"
        )
    gripper = profile.gripper
    ends = [(joint.low, joint.high) for joint in gripper.joints if joint.name == gripper.command_joint]
    for low, high in ends:
        outside = [value for value in (gripper.closed, gripper.open) if not low <= value <= high]
        if outside:
            yield Finding("gripper", f"target {outside[0]:g} is outside of {gripper.command_joint}'s {low:g}..{high:g}")
    if gripper.settle > 0.5:
        yield Finding("gripper.settle", f"{gripper.settle:g} s of an unchanged command before the gripper moves")
