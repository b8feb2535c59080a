"""LIBERO's Panda as a contract, and LIBERO's observation in its terms: the layout of openpi's LIBERO example.

State [8], frame: MuJoCo's world frame, m; z up, x away from the robot. Position and rotation of robosuite's grip site;
the rotation as a vector along its axis with the angle as length, 0 to 2 pi, as openpi computes it (it jumps where the
quaternion changes sign). Fingers: m, one opens to +0.04, the other to -0.04. Without cameras [28]: where the things are
that the task is about comes after it, see `pirl_sim.libero.goal_objects`.

Action [7]: what LIBERO's demonstrations hold and openpi's checkpoints give, robosuite's OSC_POSE command in [-1, 1]
without a unit. A 1 sets the controller's goal 0.05 m (0.5 rad for the rotation vector) from where the hand is, in the
world frame; how far the hand gets in the 50 ms is the controller's. Gripper: -1 opens, 1 closes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract.contract import Camera, Contract, Field
from pirl_contract.schema import Image, Vector

ROBOT = "panda_libero"
ROBOT_WITHOUT_CAMERAS = "panda_libero_state"
RATE_HZ = 20.0
IMAGE_SIZE = 256
"""pixels; openpi renders at this size and the model shrinks"""
CAMERAS = {"base": "agentview_image", "wrist": "robot0_eye_in_hand_image"}
"""our name -> LIBERO's"""
ACTION_DIM = 7
STATE_DIM = 8


def libero_contract(cameras: bool = True, image_size: int = IMAGE_SIZE) -> Contract:
    """Return the contract: S = 8, D = 7, 20 Hz, two square RGB cameras with `cameras`; without them S = 28."""
    return Contract(
        robot=ROBOT if cameras else ROBOT_WITHOUT_CAMERAS,
        cameras=tuple(Camera(name, image_size, image_size) for name in CAMERAS) if cameras else (),
        state=(
            *(Field(f"eef.{axis}", "m") for axis in "xyz"),
            *(Field(f"eef.rotation_{axis}", "rad") for axis in "xyz"),
            Field("gripper.finger1", "m", 0.0, 0.04),
            Field("gripper.finger2", "m", -0.04, 0.0),
            *(() if cameras else _goal_fields()),
        ),
        action=tuple(
            Field(name, "1", -1.0, 1.0)
            for name in (*(f"goal_d{axis}" for axis in "xyz"), *(f"goal_rotation_{axis}" for axis in "xyz"), "gripper")
        ),
        rate_hz=RATE_HZ,
    )


def _goal_fields() -> tuple[Field, ...]:
    """Where the things are that the task is about, see `pirl_sim.libero.goal_objects`."""
    return tuple(
        Field(f"goal{number}.{name}", unit)
        for number in (1, 2)
        for name, unit in (
            *((f"object_{axis}", "m") for axis in "xyz"),
            *((f"object_q{part}", "1") for part in "wxyz"),
            *((f"place_{axis}", "m") for axis in "xyz"),
        )
    )


def to_state(observation: Mapping[str, Any]) -> Vector:
    """Return the state [8] of LIBERO's observation."""
    parts = (
        observation["robot0_eef_pos"],
        axis_angle(observation["robot0_eef_quat"]),
        observation["robot0_gripper_qpos"],
    )
    return np.concatenate(parts).astype(np.float32)


def to_images(observation: Mapping[str, Any]) -> dict[str, Image]:
    """Return the images by our names, turned by 180 degrees as openpi's training data are.

    Each is uint8 RGB [height, width, 3].
    """
    return {name: np.ascontiguousarray(observation[theirs][::-1, ::-1]) for name, theirs in CAMERAS.items()}


def axis_angle(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation vector [3] rad of a unit quaternion xyzw [4]; zero where the angle is too small."""
    w = min(max(float(quaternion[3]), -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * 2.0 * math.acos(w) / sine
