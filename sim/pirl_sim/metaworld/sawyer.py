"""MetaWorld's Sawyer as a contract: the meaning of each entry of its state and action, the same for all 50 tasks.

Frame: MuJoCo's world frame, m; the robot looks along y, z up, the table top is z = 0. `hand` is the wrist body that
the mocap weld drives, some 5 cm above the finger tips. Quaternions stand as each task of MetaWorld gives them (some
wxyz, some xyzw) and are zero where it gives none; so is a second object that a task does not have.

A control step is four of MetaWorld's own with the same action: at its 80 Hz an episode is 150 actions of a centimetre
at most, and independent noise on each of them largely cancels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pirl_contract.contract import Camera, Contract, Field
from pirl_contract.schema import Vector

ROBOT = "sawyer_metaworld"
FRAME_HZ = 80.0
"""of MetaWorld's own step: 5 physics steps of 2.5 ms"""
HELD = 4
"""of MetaWorld's steps that an action is held for"""
RATE_HZ = FRAME_HZ / HELD
CAMERA = "corner"
TCP_STEP_LIMIT = 0.01 * HELD
"""m per control step and axis: how far an action moves the mocap body that the hand follows"""
FINGER_SPAN = 0.1
"""m between the fingers at MetaWorld's opening of 1"""

HAND = slice(0, 3)
OPENING = 3
OBJECT = slice(4, 11)
SECOND = slice(11, 18)
GOAL = slice(18, 21)
HAND_VELOCITY = slice(21, 24)
OBJECT_VELOCITY = slice(24, 27)
STATE_DIM = 27
ACTION_DIM = 4
ACTION_SCALE = np.array([TCP_STEP_LIMIT] * 3 + [1.0], np.float32)

_FRAME = 18
"""numbers of one frame of MetaWorld's observation: hand, opening, two object poses"""


def sawyer_contract(cameras: bool = False, image_size: int = 64) -> Contract:
    """Return the contract: S = 27, D = 4, 20 Hz, one square RGB camera with `cameras`."""
    return Contract(
        robot=ROBOT,
        cameras=(Camera(CAMERA, image_size, image_size),) if cameras else (),
        state=(
            *_fields("hand", "xyz", "m"),
            Field("gripper.opening", "m", 0.0, FINGER_SPAN),
            *_pose_fields("object"),
            *_pose_fields("second_object"),
            *_fields("goal", "xyz", "m"),
            *_fields("hand.velocity", "xyz", "m/s"),
            *_fields("object.velocity", "xyz", "m/s"),
        ),
        action=(
            *(Field(f"tcp_d{axis}", "m", -TCP_STEP_LIMIT, TCP_STEP_LIMIT) for axis in "xyz"),
            # MetaWorld's sign: -1 opens with full force, 1 closes.
            Field("gripper_effort", "1", -1.0, 1.0),
        ),
        rate_hz=RATE_HZ,
    )


def to_state(observation: NDArray[np.float64]) -> Vector:
    """Return the state [27] of MetaWorld's observation [39] (this frame, the one before, goal).

    Velocities are over the last frame, 12.5 ms, and not over the control step.
    """
    state = np.empty(STATE_DIM, np.float32)
    now, before = observation[:_FRAME], observation[_FRAME : 2 * _FRAME]
    state[:_FRAME] = now
    state[OPENING] *= FINGER_SPAN
    state[GOAL] = observation[2 * _FRAME :]
    state[HAND_VELOCITY] = (now[HAND] - before[HAND]) * FRAME_HZ
    state[OBJECT_VELOCITY] = (now[4:7] - before[4:7]) * FRAME_HZ
    return state


def to_observation(state: Vector) -> NDArray[np.float64]:
    """Return the state [27] as the observation [39] that MetaWorld's scripted policies read; they use one frame."""
    observation = np.zeros(2 * _FRAME + 3)
    observation[:_FRAME] = state[:_FRAME]
    observation[OPENING] /= FINGER_SPAN
    observation[2 * _FRAME :] = state[GOAL]
    return observation


def _fields(name: str, parts: str, unit: str) -> tuple[Field, ...]:
    return tuple(Field(f"{name}.{part}", unit) for part in parts)


def _pose_fields(name: str) -> tuple[Field, ...]:
    return (*_fields(name, "xyz", "m"), *(Field(f"{name}.q{index}", "1") for index in range(4)))
