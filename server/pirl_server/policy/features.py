"""State vector in SI units to the input of the state token. Fixed physical scales, no data statistics.

Statistics of a few demonstrations saturate as soon as the arm leaves them; scales of the table do not. A checkpoint's
card names its feature set, so that training and serving cannot use different ones.

Shape letters: N robots or environments, S state, F features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract

Array = NDArray[np.float32]

STATE_DIM = 32
"""width of the model's state input; feature vectors are padded with zeros to it"""
CLAMP = 10.0
_REST = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4], np.float32)
_SCALE_M = 0.1
"""a decimetre on the table is one unit"""
_TABLE = np.array([0.0, 0.0, 0.1], np.float32)
_BEFORE_SAWYER = np.array([0.0, 0.6, 0.15], np.float32)
"""m, about the middle of what its hand reaches"""
_HAND_SPEED = 0.5
"""m/s"""
_CUBE_ON_TABLE = np.array([0.0, 0.0, 0.02], np.float32)


def tabletop_relative(state_NS: Array) -> Array:
    """Relative positions of tool, object and goal, object yaw up to a quarter turn, arm posture. [N, 35] -> [N, 32].

    State order: 9 joint positions, 9 velocities, tool pose (xyz, wxyz), object pose, goal position.
    """
    finger = state_NS[:, 7:8]
    tool, thing, goal = state_NS[:, 18:21], state_NS[:, 25:28], state_NS[:, 32:35]
    offset = thing - tool
    held = (finger < 0.035) & (np.linalg.norm(offset, axis=1, keepdims=True) < 0.025)
    parts = [
        (tool - _TABLE) / _SCALE_M,
        finger / 0.02 - 1.0,
        held.astype(np.float32),
        offset / _SCALE_M,
        (goal - thing) / _SCALE_M,
        (thing - _CUBE_ON_TABLE) / _SCALE_M,
        _orientation(state_NS[:, 28:32]),
        state_NS[:, 9:16] * 0.5,
        state_NS[:, 0:7] - _REST,
    ]
    return _padded(np.concatenate(parts, axis=1))


def proprioception(state_NS: Array) -> Array:
    """What a robot knows without seeing: tool position, gripper, joints, their velocities. [N, S >= 21] -> [N, 32]."""
    parts = [
        (state_NS[:, 18:21] - _TABLE) / _SCALE_M,
        state_NS[:, 7:8] / 0.02 - 1.0,
        state_NS[:, 9:16] * 0.5,
        state_NS[:, 0:7] - _REST,
    ]
    return _padded(np.concatenate(parts, axis=1))


def object_and_goal(state_NS: Array) -> Array:
    """Where an image of the table shows object and goal. [N, 35] -> [N, 32], state as in `tabletop_relative`."""
    thing, goal = state_NS[:, 25:28], state_NS[:, 32:35]
    return _padded(np.concatenate([thing / _SCALE_M, goal / _SCALE_M], axis=1))


def metaworld_relative(state_NS: Array) -> Array:
    """Hand, gripper, objects and goal relative to each other, object pose, speeds. [N, 27] -> [N, 32].

    State order: hand, gripper opening, object pose, second object's pose (zeros: there is none), goal, velocities of
    hand and object.
    """
    hand, thing, second, goal = state_NS[:, 0:3], state_NS[:, 4:7], state_NS[:, 11:14], state_NS[:, 18:21]
    exists = np.any(second != 0.0, axis=1, keepdims=True)
    parts = [
        (hand - _BEFORE_SAWYER) / _SCALE_M,
        state_NS[:, 3:4] / 0.05 - 1.0,
        (thing - hand) / _SCALE_M,
        (goal - thing) / _SCALE_M,
        (goal - hand) / _SCALE_M,
        (thing - _BEFORE_SAWYER) / _SCALE_M,
        np.where(exists, (second - thing) / _SCALE_M, 0.0),
        exists.astype(np.float32),
        state_NS[:, 7:11],
        state_NS[:, 21:24] / _HAND_SPEED,
        state_NS[:, 24:27] / _HAND_SPEED,
    ]
    return _padded(np.concatenate(parts, axis=1))


def metaworld_proprioception(state_NS: Array) -> Array:
    """What MetaWorld's Sawyer knows without seeing: hand, gripper opening, hand velocity. [N, 27] -> [N, 32]."""
    parts = [
        (state_NS[:, 0:3] - _BEFORE_SAWYER) / _SCALE_M,
        state_NS[:, 3:4] / 0.05 - 1.0,
        state_NS[:, 21:24] / _HAND_SPEED,
    ]
    return _padded(np.concatenate(parts, axis=1))


FEATURES: dict[str, Callable[[Array], Array]] = {
    "tabletop_relative": tabletop_relative,
    "proprioception": proprioception,
    "object_and_goal": object_and_goal,
    "metaworld_relative": metaworld_relative,
    "metaworld_proprioception": metaworld_proprioception,
}
"""by the name that a model card carries"""


def features_of(robot: str, sees: bool) -> str:
    """Name of the feature set for a contract's robot: without objects and goal for a policy that sees them."""
    if robot == "sawyer_metaworld":
        return "metaworld_proprioception" if sees else "metaworld_relative"
    return "proprioception" if sees else "tabletop_relative"


READS = {
    "tabletop_relative": (35, 18),
    "proprioception": (21, 18),
    "object_and_goal": (35, 18),
    "metaworld_relative": (27, 0),
    "metaworld_proprioception": (27, 0),
}
"""how many entries of the state a feature set needs, and where the tool's x, y and z are"""


def check_features(name: str, contract: Contract) -> None:
    """Raise ValueError when a robot's state is not laid out as this feature set reads it."""
    entries, tool = READS[name]
    position = [field.name.rpartition(".")[2] for field in contract.state[tool : tool + 3]]
    if contract.state_dim < entries or position != ["x", "y", "z"]:
        raise ValueError(
            f"features '{name}' read {entries} entries of the state, the tool's position from number {tool} on: robot"
            f" '{contract.robot}' has another state; give a base that was imported for it"
        )


def _orientation(wxyz_N4: Array) -> Array:
    """Return cos and sin of four times the yaw (a cube looks the same each quarter turn) and the z axis' z. [N, 3]."""
    w, x, y, z = wxyz_N4.T
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return np.stack([np.cos(4 * yaw), np.sin(4 * yaw), 1 - 2 * (x * x + y * y)], axis=1)


def _padded(features_NF: NDArray[np.floating]) -> Array:
    padded = np.zeros((len(features_NF), STATE_DIM), np.float32)
    padded[:, : features_NF.shape[1]] = np.clip(features_NF, -CLAMP, CLAMP)
    return padded
