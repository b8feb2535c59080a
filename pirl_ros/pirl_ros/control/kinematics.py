"""Forward kinematics, Jacobian and inverse kinematics of an arm given as a table of joint origins.

Frames: base frame of the table; lengths in metres, angles in radians. J = number of joints, each about its own z.

Method: forward kinematics as a product of homogeneous transforms in URDF's convention; the geometric Jacobian, whose
column is [z x (p - p_joint), z] (Whitney 1972); the inverse by damped least squares with a constant damping (Wampler
1986; Nakamura and Hanafusa 1986), each iterate clipped to the joint limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_ros.profile.sections import KinematicTable, Origin

Array = NDArray[np.float64]

_DAMPING = 1e-3
"""lambda; metres and radians enter the error alike"""
_MAX_ITERATIONS = 60
_POSITION_TOLERANCE = 1e-5
"""m, on each axis"""
_ROTATION_TOLERANCE = 1e-4
"""rad, on each axis"""


@dataclass(frozen=True)
class Chain:
    """A serial arm."""

    origins: Array
    """[J, 4, 4] transform from joint i-1's frame to joint i's at angle zero"""
    tool: Array
    """[4, 4] tool centre in the last joint's frame"""

    @classmethod
    def from_table(cls, table: KinematicTable) -> Chain:
        """Build from a robot profile's table."""
        return cls(np.stack([transform(origin) for origin in table.joints]), transform(table.tool))

    def forward(self, joints: Array) -> tuple[Array, Array]:
        """Return position [3] m and rotation [3, 3] of the tool centre in the base frame for joints [J] rad."""
        pose = self._frames(joints)[-1] @ self.tool
        return pose[:3, 3], pose[:3, :3]

    def jacobian(self, joints: Array) -> tuple[Array, Array, Array]:
        """Return d(velocity, angular velocity)/d(joint rates) [6, J] in the base frame, and the pose as `forward`.

        `joints` [J] rad.
        """
        frames = self._frames(joints)
        pose = frames[-1] @ self.tool
        axes, arms = frames[:, :3, 2], pose[:3, 3] - frames[:, :3, 3]
        return np.vstack([np.cross(axes, arms).T, axes.T]), pose[:3, 3], pose[:3, :3]

    def inverse(self, position: Array, rotation: Array, start: Array, low: Array, high: Array) -> Array | None:
        """Return joints [J] within [low, high] that reach the pose, near `start`; None when it cannot be reached.

        Position [3] m in the base frame, rotation [3, 3]; `start`, `low` and `high` [J] rad each.
        Damped least squares (Wampler 1986; Nakamura and Hanafusa 1986): dq = J^T (J J^T + lambda^2 I)^-1 e.
        """
        joints = np.clip(start, low, high)
        damping = _DAMPING**2 * np.eye(6)
        for _ in range(_MAX_ITERATIONS):
            jacobian, reached, turned = self.jacobian(joints)
            error = np.concatenate([position - reached, rotation_vector(rotation @ turned.T)])
            if _small(error):
                return joints
            joints = np.clip(joints + jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping, error), low, high)
        return None

    def _frames(self, joints: Array) -> Array:
        """[J, 4, 4] frame of each joint, after its own turn."""
        frames = np.empty_like(self.origins)
        pose = np.eye(4)
        for index, (origin, cosine, sine) in enumerate(zip(self.origins, np.cos(joints), np.sin(joints))):
            pose = pose @ origin
            turned = pose.copy()
            turned[:3, 0] = cosine * pose[:3, 0] + sine * pose[:3, 1]
            turned[:3, 1] = cosine * pose[:3, 1] - sine * pose[:3, 0]
            pose = frames[index] = turned
        return frames


def transform(origin: Origin) -> Array:
    """Return URDF's xyz and rpy as a transform [4, 4]: roll about x, pitch about y, yaw about z, axes fixed."""
    roll, pitch, yaw = origin.rpy
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3] = about_z @ about_y @ about_x
    pose[:3, 3] = origin.xyz
    return pose


def turned(rotation: Array, vector: Array) -> Array:
    """Return a rotation [3, 3] turned further by axis times angle [3] in the base frame (Rodrigues). Returns [3, 3]."""
    angle = float(np.linalg.norm(vector))
    if angle == 0.0:
        return rotation
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    result: Array = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) @ rotation
    return result


def rotation_vector(rotation: Array) -> Array:
    """Return axis times angle [3] of a rotation matrix; the error of orientation for angles below pi. From [3, 3]."""
    twice_sine_axis = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine, cosine = np.linalg.norm(twice_sine_axis) / 2, (np.trace(rotation) - 1) / 2
    if sine < 1e-9:
        return twice_sine_axis / 2
    return twice_sine_axis / 2 * float(np.arctan2(sine, cosine) / sine)


def _small(error: Array) -> bool:
    return bool(np.abs(error[:3]).max() < _POSITION_TOLERANCE and np.abs(error[3:]).max() < _ROTATION_TOLERANCE)
