"""The simulated Panda's contract: the meaning of each entry of its state and action.

Frame: ManiSkill's world frame. The table top is z = 0, x points away from the robot, z up. The robot's base
(`panda_link0`) stands at `BASE_POSITION` without rotation, so base frame = world frame minus that offset.
"""

from __future__ import annotations

import numpy as np

from pirl_contract.contract import Camera, Contract, Field

RATE_HZ = 20.0
CAMERA = "base"
CAMERA_EYE = (0.45, 0.0, 0.5)
"""m, world frame: in front of the robot, above the far edge of where the tasks put their objects"""
CAMERA_TARGET = (-0.02, 0.0, 0.03)
"""m, world frame: what the camera is aimed at"""
CAMERA_FOV = 0.8
"""rad, vertical field of view; the image is square"""
BASE_POSITION = (-0.615, 0.0, 0.0)
"""m, world frame, of `panda_link0`; its rotation is the identity"""
TCP_IN_HAND = (0.0, 0.0, 0.1034)
"""m, of `panda_hand_tcp` in `panda_hand`, which sits 0.107 m along z of link 7, turned by -pi/4 about it"""

ARM_JOINTS = tuple(f"panda_joint{index}" for index in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
JOINTS = ARM_JOINTS + FINGER_JOINTS

ARM_LIMITS = np.array(
    [
        (-2.8973, 2.8973),
        (-1.7628, 1.7628),
        (-2.8973, 2.8973),
        (-3.0718, -0.0698),
        (-2.8973, 2.8973),
        (-0.0175, 3.7525),
        (-2.8973, 2.8973),
    ]
)
"""[7, 2] rad, lowest and highest"""
FINGER_LIMITS = (0.0, 0.04)
"""m, each finger from the middle"""
ARM_VELOCITY_LIMITS = (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61)
"""rad/s"""
FINGER_VELOCITY_LIMIT = 0.2
"""m/s"""
TCP_STEP_LIMIT = 0.1
"""m, the largest move of the tool centre per control step and axis"""

QPOS = slice(0, 9)
QVEL = slice(9, 18)
TCP = slice(18, 25)
OBJECT = slice(25, 32)
GOAL = slice(32, 35)
STATE_DIM = 35
ACTION_DIM = 4
TCP_DELTA = slice(0, 3)
GRIPPER = 3


def panda_contract(cameras: bool = True, image_size: int = 64) -> Contract:
    """Return the contract: S = 35, D = 4, 20 Hz, one square RGB camera unless `cameras` is off."""
    return Contract(
        robot="panda_sim",
        cameras=(Camera(CAMERA, image_size, image_size),) if cameras else (),
        state=(*_joint_fields(), *_pose_fields("tcp"), *_pose_fields("object"), *_position_fields("goal")),
        action=(
            *(Field(f"tcp_d{axis}", "m", -TCP_STEP_LIMIT, TCP_STEP_LIMIT) for axis in "xyz"),
            Field("gripper", "1", -1.0, 1.0),
        ),
        rate_hz=RATE_HZ,
    )


def _joint_fields() -> tuple[Field, ...]:
    arm = zip(ARM_JOINTS, ARM_LIMITS.tolist(), ARM_VELOCITY_LIMITS)
    positions, velocities = [], []
    for name, (low, high), speed in arm:
        positions.append(Field(f"{name}.position", "rad", low, high))
        velocities.append(Field(f"{name}.velocity", "rad/s", -speed, speed))
    for name in FINGER_JOINTS:
        positions.append(Field(f"{name}.position", "m", *FINGER_LIMITS))
        velocities.append(Field(f"{name}.velocity", "m/s", -FINGER_VELOCITY_LIMIT, FINGER_VELOCITY_LIMIT))
    return (*positions, *velocities)


def _position_fields(name: str) -> tuple[Field, ...]:
    return tuple(Field(f"{name}.{axis}", "m") for axis in "xyz")


def _pose_fields(name: str) -> tuple[Field, ...]:
    return (*_position_fields(name), *(Field(f"{name}.{part}", "1") for part in ("qw", "qx", "qy", "qz")))
