"""Forward kinematics, Jacobian and inverse kinematics of an arm given as a table of joint origins.

Frames: base frame of the table; lengths in metres, angles in radians. J = number of joints, each of which turns about
or slides along an axis of its own.

Method: forward kinematics as a product of homogeneous transforms in URDF's convention, each joint's frame turned so
that its z is the axis; the geometric Jacobian, whose column is [z x (p - p_joint), z] for a joint that turns and [z, 0]
for one that slides (Whitney 1972); the inverse by damped least squares (Wampler 1986; Nakamura and Hanafusa 1986) with
a damping that falls with the error (Sugihara 2011), without the joints that are at a limit and would pass it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pirl_ros.control import rotations
from pirl_ros.profile.sections import KinematicTable, Origin

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST_DAMPING = 1e-6
"""lambda^2 at the goal; metres and radians enter the error alike"""
_MAX_ITERATIONS = 60
_POSITION_TOLERANCE = 1e-5
"""m, on each axis"""
_ROTATION_TOLERANCE = 1e-4
"""rad, on each axis"""
_NOTHING = 1e-9
"""m and rad, below which a pose is the one at `start`"""


@dataclass(frozen=True)
class Chain:
    """A serial arm."""

    origins: Array
    """[J, 4, 4] transform from joint i-1's frame to joint i's at 0, z along the joint's axis"""
    tool: Array
    """[4, 4] tool centre in the last joint's frame"""
    prismatic: tuple[bool, ...] = ()
    """[J] which joints slide; empty: none"""

    @classmethod
    def from_table(cls, table: KinematicTable) -> Chain:
        """Build from a robot profile's table."""
        origins, before = [], np.eye(4)
        for joint in table.joints:
            after = np.eye(4)
            after[:3, :3] = onto_z(np.array(joint.axis, float))
            origins.append(before.T @ transform(joint) @ after)
            before = after
        slides = tuple(joint.type == "prismatic" for joint in table.joints)
        return cls(np.stack(origins), before.T @ transform(table.tool), slides if any(slides) else ())

    @cached_property
    def slides(self) -> Mask:
        """[J] which joints slide."""
        return np.array(self.prismatic or (False,) * len(self.origins))

    def forward(self, joints: Array) -> tuple[Array, Array]:
        """Return position [3] m and rotation [3, 3] of the tool centre in the base frame for joints [J] rad or m."""
        pose = self._frames(joints)[-1] @ self.tool
        return pose[:3, 3], pose[:3, :3]

    def jacobian(self, joints: Array) -> tuple[Array, Array, Array]:
        """Return d(velocity, angular velocity)/d(joint rates) [6, J] in the base frame, and the pose as `forward`.

        `joints` [J] rad or m.
        """
        frames = self._frames(joints)
        pose = frames[-1] @ self.tool
        axes = frames[:, :3, 2].T
        (x, y, z), (a, b, c) = axes, pose[:3, 3:] - frames[:, :3, 3].T
        jacobian = np.stack([y * c - z * b, z * a - x * c, x * b - y * a, x, y, z])
        if self.prismatic:
            jacobian[:3, self.slides] = axes[:, self.slides]
            jacobian[3:, self.slides] = 0.0
        return jacobian, pose[:3, 3], pose[:3, :3]

    def inverse(self, position: Array, rotation: Array, start: Array, low: Array, high: Array) -> Array | None:
        """Return joints [J] within [low, high] that reach the pose, near `start`; None when it cannot be reached.

        Position [3] m in the base frame, rotation [3, 3]; `start`, `low` and `high` [J] rad or m each.
        """
        joints = np.clip(start, low, high)
        for iteration in range(_MAX_ITERATIONS):
            jacobian, reached, turned = self.jacobian(joints)
            error = np.concatenate([position - reached, rotations.vector(rotation @ turned.T)])
            # A step smaller than the tolerance is a step: many of them are a slow motion.
            if _small(error) and (iteration or np.abs(error).max() < _NOTHING):
                return joints
            joints = np.minimum(np.maximum(joints + _step(jacobian, error, joints <= low, joints >= high), low), high)
        return None

    def places(self, joints: Array) -> Array:
        """Return where each joint is [J, 3] m in the base frame, before its own motion; joints [J] rad or m."""
        before = np.concatenate([np.eye(4)[None], self._frames(joints)[:-1]])
        places: Array = (before @ self.origins)[:, :3, 3]
        return places

    def _frames(self, joints: Array) -> Array:
        """[J, 4, 4] frame of each joint, after its own motion."""
        angles = np.where(self.slides, 0.0, joints) if self.prismatic else joints
        frames = self.origins.copy()
        along_x, along_y = self.origins[:, :, 0], self.origins[:, :, 1]
        c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
        frames[:, :, 0] = c * along_x + s * along_y
        frames[:, :, 1] = c * along_y - s * along_x
        if self.prismatic:
            frames[:, :, 3] += (joints - angles)[:, None] * self.origins[:, :, 2]
        for index in range(1, len(frames)):
            frames[index] = frames[index - 1] @ frames[index]
        return frames


def _step(jacobian: Array, error: Array, at_low: Mask, at_high: Mask) -> Array:
    """Joint step [J] that reduces the error [6]: J^T (J J^T + lambda^2 I)^-1 e, lambda^2 = |e|^2 / 2 + a little.

    A joint at a limit that the step would take beyond it is held, and the others make up for it. As lambda falls with
    the error, steps stay short where the arm is singular and the goal is far, and converge fast near it.
    """
    damping = (float(error @ error) / 2 + _LEAST_DAMPING) * np.eye(6)
    free = np.ones(len(at_low))
    while True:
        step: Array = free * (jacobian.T @ np.linalg.solve((jacobian * free) @ jacobian.T + damping, error))
        held = (at_low & (step < 0)) | (at_high & (step > 0))
        if not held.any():
            return step
        free = np.where(held, 0.0, free)


def onto_z(axis: Array) -> Array:
    """Return a rotation [3, 3] that takes z to the direction of `axis` [3]; the unit matrix for z itself."""
    if axis[2] < 0:
        over = np.diag([1.0, -1.0, -1.0])
        return over @ onto_z(over @ axis)
    x, y, z = axis / np.linalg.norm(axis)
    share = 1 / (1 + z)
    return np.array([[1 - x * x * share, -x * y * share, x], [-x * y * share, 1 - y * y * share, y], [-x, -y, z]])


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


def _small(error: Array) -> bool:
    return bool(np.abs(error[:3]).max() < _POSITION_TOLERANCE and np.abs(error[3:]).max() < _ROTATION_TOLERANCE)
