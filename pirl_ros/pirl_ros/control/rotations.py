"""Rotation matrices and the four ways in which actions write them, K numbers each. Angles in rad; names as in profiles.

Method: the matrix is turned into a quaternion by its largest component (Shepperd 1978), which stays exact at half a
turn, where the antisymmetric part of the matrix vanishes; six numbers become a matrix by Gram-Schmidt (Zhou et al.
2019, "On the continuity of rotation representations in neural networks").
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SHORTEST = 0.1
"""length below which a quaternion or an axis points nowhere"""


def matrix(values: Array, representation: str) -> Array | None:
    """Return the rotation [3, 3] of `values` [K]; None: they are none, as a quaternion of length 0.

    axis_angle, euler_xyz: K = 3 rad. quaternion: K = 4, w first. rotation_6d: K = 6, the first two columns.
    """
    if representation == "axis_angle":
        return turned(np.eye(3), values)
    if representation == "euler_xyz":
        x, y, z = np.eye(3)
        return turned(turned(turned(np.eye(3), x * values[0]), y * values[1]), z * values[2])
    if representation == "quaternion":
        length = float(np.linalg.norm(values))
        return None if length < _SHORTEST else _from_quaternion(values / length)
    assert representation == "rotation_6d", representation
    return _from_columns(values[:3], values[3:])


def values_of(rotation: Array, representation: str, near: Array | None = None) -> Array:
    """Return how `rotation` [3, 3] is written, [K]; of two ways the one closer to `near` [K]. Inverse of `matrix`."""
    if representation == "euler_xyz":
        return _euler(rotation)
    if representation == "rotation_6d":
        return np.concatenate([rotation[:, 0], rotation[:, 1]])
    ways = _vectors(rotation) if representation == "axis_angle" else _signs(_quaternion(rotation))
    if near is None:
        return ways[0]
    return min(ways, key=lambda way: float(np.abs(way - near).max()))


def turned(rotation: Array, vector: Array) -> Array:
    """Return a rotation [3, 3] turned further by axis times angle [3] in the base frame (Rodrigues). Returns [3, 3]."""
    angle = float(np.linalg.norm(vector))
    if angle == 0.0:
        return rotation
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    result: Array = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) @ rotation
    return result


def vector(rotation: Array) -> Array:
    """Return axis times angle [3] of a rotation [3, 3], the angle in [0, pi]. Exact at half a turn."""
    return _vectors(rotation)[0]


def shortened(start: Array, goal: Array, largest: float) -> Array:
    """Return `goal`, or the rotation at most `largest` rad from `start` on the shortest way to it. All [3, 3]."""
    way = vector(goal @ start.T)
    angle = float(np.linalg.norm(way))
    return goal if angle <= largest else turned(start, way * (largest / angle))


def between(start: Array, goal: Array, share: float) -> Array:
    """Return the rotation at `share` of the shortest way from `start` to `goal` (slerp). All [3, 3]."""
    return turned(start, share * vector(goal @ start.T))


def _from_quaternion(q: Array) -> Array:
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _from_columns(first: Array, second: Array) -> Array | None:
    length = float(np.linalg.norm(first))
    if length < _SHORTEST:
        return None
    x = first / length
    rest = second - (x @ second) * x
    length = float(np.linalg.norm(rest))
    if length < _SHORTEST:
        return None
    y = rest / length
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _quaternion(rotation: Array) -> Array:
    """[4], w first and not negative."""
    m: list[list[float]] = rotation.tolist()  # plain numbers: four times as fast as NumPy's of so few
    diagonal = m[0][0], m[1][1], m[2][2]
    trace = sum(diagonal)
    q = [0.0] * 4
    if trace >= max(diagonal):
        q = [1 + trace, m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]]
    else:
        i = diagonal.index(max(diagonal))
        j, k = (i + 1) % 3, (i + 2) % 3
        q[0], q[1 + i] = m[k][j] - m[j][k], 1 + 2 * m[i][i] - trace
        q[1 + j], q[1 + k] = m[j][i] + m[i][j], m[k][i] + m[i][k]
    length = math.copysign(math.hypot(*q), q[0])
    return np.array(q) / length


def _signs(q: Array) -> tuple[Array, ...]:
    return q, -q


def _vectors(rotation: Array) -> tuple[Array, ...]:
    """Axis times angle [3], and the same rotation the other way round where that is within half a turn and a little."""
    q = _quaternion(rotation)
    length = float(np.linalg.norm(q[1:]))
    if length < 1e-12:
        return (2 * q[1:],)
    angle, axis = 2 * math.atan2(length, q[0]), q[1:] / length
    return angle * axis, (angle - 2 * math.pi) * axis


def _euler(m: Array) -> Array:
    flat = math.hypot(m[0, 0], m[1, 0])
    pitch = math.atan2(-m[2, 0], flat)
    if flat < 1e-9:
        # Straight up or down: roll and yaw turn about one axis, yaw is left at 0.
        return np.array([math.atan2(-m[1, 2], m[1, 1]), pitch, 0.0])
    return np.array([math.atan2(m[2, 1], m[2, 2]), pitch, math.atan2(m[1, 0], m[0, 0])])
