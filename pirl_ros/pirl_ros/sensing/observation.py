"""Streams of an observation, and a bundle of messages to the contract's state vector."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pirl_contract.schema import Image, Observation, Vector
from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import Rule
from pirl_ros.sensing.joint_parts import JointAssembler
from pirl_ros.sensing.sensor_messages import (
    compressed_to_rgb,
    image_to_rgb,
    joints_by_name,
    pose_to_vector,
    wrench_to_vector,
)
from pirl_ros.sensing.state_history import Measured
from pirl_ros.sensing.synchronizer import Bundle, Stream, Synchronizer

JOINTS = "joint states"
GRIPPER = "gripper joint states"


class _Ruled(Protocol):
    @property
    def rule(self) -> Rule: ...

    @property
    def max_age(self) -> float: ...


def pose_stream(name: str) -> str:
    """Name of the stream of a pose, as a diagnostic shows it."""
    return f"pose {name}"


def wrench_stream(name: str) -> str:
    """Name of the stream of a wrench, as a diagnostic shows it."""
    return f"wrench {name}"


def camera_stream(name: str) -> str:
    """Name of the stream of a camera, as a diagnostic shows it."""
    return f"camera {name}"


def make_synchronizer(profile: Profile, cameras: bool) -> Synchronizer:
    """Return the synchroniser for the profile's streams, with or without its cameras."""
    limit = profile.safety.max_observation_age
    ruled: list[tuple[str, _Ruled]] = [(pose_stream(pose.name), pose) for pose in profile.poses]
    ruled += [(wrench_stream(wrench.name), wrench) for wrench in profile.wrenches]
    if cameras:
        ruled += [(camera_stream(camera.name), camera) for camera in profile.cameras]
    streams = {JOINTS: Stream(limit)}
    if profile.gripper.joint_states:
        # Gripper drivers publish at their own, slower rate.
        streams[GRIPPER] = Stream(limit, "hold")
    streams |= {name: Stream(part.max_age or limit, part.rule) for name, part in ruled}
    return Synchronizer(streams, profile.safety.slop)


def make_assemblers(profile: Profile) -> dict[str, JointAssembler]:
    """Return what puts the joints of each stream of joint states together, by the stream's name."""
    arm = [joint.name for joint in profile.arm_joints]
    fingers = [finger.name for each in profile.singles for finger in each.gripper.joints]
    limit = profile.safety.max_observation_age
    if not profile.gripper.joint_states:
        return {JOINTS: JointAssembler(arm, fingers, limit)}
    return {JOINTS: JointAssembler(arm, (), limit), GRIPPER: JointAssembler(fingers, (), limit)}


def measured_arm(profile: Profile, bundle: Bundle) -> Measured:
    """Return the arms' joints in the profile's order and the commanded fingers. ValueError: a message lacks one.

    A finger is None when the profile does not measure it.
    """
    names = [joint.name for joint in profile.arm_joints]
    joints = joints_by_name(bundle.values[JOINTS], names, velocities=False)[0].astype(float)
    fingers = tuple(_finger(single, bundle) for single in profile.singles)
    return Measured(bundle.stamp_ns, bundle.received_ns, joints, fingers)


def _finger(profile: Profile, bundle: Bundle) -> float | None:
    """Where the commanded gripper joint of one arm is."""
    gripper = profile.gripper
    if gripper.command_joint not in [finger.name for finger in gripper.joints]:
        return None
    message = bundle.values[GRIPPER if gripper.joint_states else JOINTS]
    return float(joints_by_name(message, [gripper.command_joint], velocities=False)[0][0])


def state_vector(profile: Profile, bundle: Bundle) -> Vector:
    """Return the state [S] in the contract's order: positions, velocities, poses, wrenches. ValueError: unfit."""
    groups = []
    for single in profile.singles:
        arm, fingers = ([joint.name for joint in part.joints] for part in (single.arm, single.gripper))
        fingers_in = bundle.values[GRIPPER if single.gripper.joint_states else JOINTS]
        groups += [(bundle.values[JOINTS], arm), (fingers_in, fingers)]
    positions, velocities = zip(*[joints_by_name(message, names, profile.velocities) for message, names in groups])
    parts = [*positions, *velocities]
    for pose in profile.poses:
        stream = pose_stream(pose.name)
        vector = pose_to_vector(_in_frame(bundle.values[stream], pose.frame, stream))
        parts.append(vector[:3] if pose.position_only else vector)
    for wrench in profile.wrenches:
        stream = wrench_stream(wrench.name)
        parts.append(wrench_to_vector(_in_frame(bundle.values[stream], wrench.frame, stream)))
    return np.concatenate(parts).astype(np.float32)


def _in_frame(message: Any, frame: str, stream: str) -> Any:
    """Return the message. ValueError: the profile states a frame, and the message has another."""
    if frame and message.header.frame_id != frame:
        raise ValueError(
            f"{stream} is given in frame '{message.header.frame_id}', the profile says '{frame}': publish it in that"
            " frame (tf2), or correct the profile's `frame`"
        )
    return message


def camera_images(profile: Profile, bundle: Bundle) -> dict[str, Image]:
    """Return RGB images by camera name. ValueError when one has not the size that the contract states.

    Each is uint8 [height, width, 3].
    """
    images = {}
    for camera in profile.cameras:
        message = bundle.values[camera_stream(camera.name)]
        try:
            image = compressed_to_rgb(message) if camera.compressed else image_to_rgb(message)
        except ValueError as error:
            raise ValueError(f"camera {camera.name}: {error}") from None
        if image.shape[:2] != (camera.height, camera.width):
            height, width = image.shape[:2]
            raise ValueError(
                f"camera {camera.name} sends {width}x{height}, the profile says {camera.width}x{camera.height}"
            )
        images[camera.name] = image
    return images


def make_observation(profile: Profile, bundle: Bundle, instruction: str, robot_id: str) -> Observation:
    """Return the observation of one bundle."""
    return Observation(
        images=camera_images(profile, bundle),
        state=state_vector(profile, bundle),
        instruction=instruction,
        robot_id=robot_id,
        capture_time_ns=bundle.stamp_ns,
    )
