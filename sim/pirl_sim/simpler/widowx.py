"""SIMPLER's WidowX 250 S as a contract: the layout of BridgeData V2, as SimplerEnv's openpi example has it.

State [8], frame: the robot's base, m; x forward, z up. Position of `ee_gripper_link`; roll, pitch, yaw (about the fixed
x, y, z) of its rotation against a hand that points straight down; a zero that fills the layout; opening of the gripper,
0 closed to 1 open.

Action [7] per 200 ms: shift of the target position in the base frame, m; its turn, rad, about the base's axes through
the hand; gripper, open above 0.5, else closed, as Bridge's data have it. ManiSkill 3.0.1 reads the three angles as
Euler angles about x, y, z; Bridge's are roll, pitch, yaw, and SIMPLER makes a rotation vector of them: the same to
first order.

The limits are a choice of ours, wide enough for Bridge's steps: ManiSkill's own are dummies (1 m, 90 degrees).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pirl_contract.contract import Camera, Contract, Field
from pirl_contract.schema import Vector

ROBOT = "widowx_simpler"
RATE_HZ = 5.0
CAMERA = "base"
"""ManiSkill's 3rd_view_camera"""
IMAGE_HEIGHT, IMAGE_WIDTH = 480, 640
POSITION_STEP, ROTATION_STEP = 0.1, 0.5
"""m and rad per control step and axis"""
GRIPPER = 6
FINGERS = slice(6, 8)
"""of the joint positions"""
FINGER_LIMITS = (0.015, 0.037)
"""m, closed and open, each finger"""
_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""rotation of the link in the base frame when the hand points straight down"""


def widowx_contract(cameras: bool = True) -> Contract:
    """Return the contract: S = 8, D = 7, 5 Hz, one RGB camera with `cameras`."""
    angles = ("roll", "pitch", "yaw")
    return Contract(
        robot=ROBOT,
        cameras=(Camera(CAMERA, IMAGE_HEIGHT, IMAGE_WIDTH),) if cameras else (),
        state=(
            *(Field(f"eef.{axis}", "m") for axis in "xyz"),
            *(Field(f"eef.{angle}", "rad", -math.pi, math.pi) for angle in angles),
            Field("zero", "1", 0.0, 0.0),
            Field("gripper.opening", "1", 0.0, 1.0),
        ),
        action=(
            *(Field(f"eef_d{axis}", "m", -POSITION_STEP, POSITION_STEP) for axis in "xyz"),
            *(Field(f"eef_d{angle}", "rad", -ROTATION_STEP, ROTATION_STEP) for angle in angles),
            Field("gripper", "1", -1.0, 1.0),
        ),
        rate_hz=RATE_HZ,
    )


def to_state(pose: NDArray[np.float32], joints: NDArray[np.float32]) -> Vector:
    """Return the state [8] of the hand's pose [7] in the base frame (m, wxyz) and the joint positions [8]."""
    from transforms3d.euler import mat2euler
    from transforms3d.quaternions import quat2mat

    angles = mat2euler(quat2mat(pose[3:]) @ _DOWN.T)
    low, high = FINGER_LIMITS
    opening = min(float(np.mean((joints[FINGERS] - low) / (high - low))), 1.0)
    return np.array([*pose[:3], *angles, 0.0, opening], np.float32)


def to_maniskill(action: Vector) -> Vector:
    """Return the action [7] as ManiSkill's controller takes it: the same, but the gripper -1 (closed) or 1 (open)."""
    command = action.copy()
    command[GRIPPER] = 1.0 if action[GRIPPER] > 0.5 else -1.0
    return command
