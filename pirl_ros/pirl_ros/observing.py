"""Which streams make an observation, and how a bundle of messages becomes the contract's state vector."""

from __future__ import annotations

import numpy as np

from pirl_contract.schema import Image, Observation, Vector
from pirl_ros.convert import image_to_rgb, joints_by_name, pose_to_vector
from pirl_ros.profile import Profile
from pirl_ros.sync import Bundle, Synchronizer

JOINTS = "joint states"


def pose_stream(name: str) -> str:
    """Name of the stream of a pose, as a diagnostic shows it."""
    return f"pose {name}"


def camera_stream(name: str) -> str:
    """Name of the stream of a camera, as a diagnostic shows it."""
    return f"camera {name}"


def make_synchronizer(profile: Profile, cameras: bool) -> Synchronizer:
    """Return the synchroniser for the profile's streams, with or without its cameras."""
    names = [JOINTS, *(pose_stream(pose.name) for pose in profile.poses)]
    if cameras:
        names += [camera_stream(camera.name) for camera in profile.cameras]
    return Synchronizer(dict.fromkeys(names, profile.safety.max_observation_age), profile.safety.slop)


def joint_positions(profile: Profile, bundle: Bundle) -> Vector:
    """Return the measured arm joints, rad, in the profile's order."""
    return joints_by_name(bundle.values[JOINTS], [joint.name for joint in profile.arm.joints])[0]


def state_vector(profile: Profile, bundle: Bundle) -> Vector:
    """Return the state [S] in the contract's order: positions, velocities, poses. ValueError: unfit message."""
    positions, velocities = joints_by_name(bundle.values[JOINTS], [joint.name for joint in profile.joints])
    poses = []
    for pose in profile.poses:
        vector = pose_to_vector(bundle.values[pose_stream(pose.name)])
        poses.append(vector[:3] if pose.position_only else vector)
    return np.concatenate([positions, velocities, *poses]).astype(np.float32)


def camera_images(profile: Profile, bundle: Bundle) -> dict[str, Image]:
    """Return RGB images by camera name. ValueError when one has not the size that the contract states."""
    images = {}
    for camera in profile.cameras:
        image = image_to_rgb(bundle.values[camera_stream(camera.name)])
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
        capture_time_ns=bundle.received_ns,
    )
