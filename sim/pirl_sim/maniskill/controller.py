"""The Panda's controller without torch: joint and tool-centre targets set directly on the SAPIEN joints.

It repeats ManiSkill's pd_ee_delta_pos and pd_joint_pos in the same float32 operations, so that the drive targets are
bit-equal to the ones ManiSkill would set and the physics that follows is the same.
"""

from __future__ import annotations

import numpy as np

from pirl_contract.schema import Vector
from pirl_sim.maniskill.panda import ARM_JOINTS
from pirl_sim.maniskill.world import World

_GRIPPER_LOW, _GRIPPER_HIGH = np.float32(-0.01), np.float32(0.04)
"""m; the closed target lies inside the finger so that a thin object is still pressed"""
_GRIPPER_MIDDLE = np.float32(0.5) * (_GRIPPER_HIGH + _GRIPPER_LOW)
_GRIPPER_HALF = np.float32(0.5) * (_GRIPPER_HIGH - _GRIPPER_LOW)
_IK_ITERATIONS = 100


class Arm:
    """Drives the Panda of a `World`; holds the last targets until new ones are set."""

    def __init__(self, world: World) -> None:
        self._world = world
        kinematics = world.base.agent.controller.controllers["arm"].kinematics
        self._model = kinematics.pmodel
        self._tcp_index = kinematics.end_link_idx
        self._arm_mask = kinematics.qmask.numpy().astype(np.int32)
        self._arm_joints = world.joints[: len(ARM_JOINTS)]
        self._finger_joints = world.joints[len(ARM_JOINTS) :]
        root = world.root.entity.pose
        assert not root.q[1:].any(), "the base is not rotated: base frame = world frame - offset"
        # SAPIEN's base quaternion is 1 + 1 ulp: ManiSkill's rounding includes that factor, so ours must.
        self._w = root.q[0]
        self._minus_base = self._w * -root.p * self._w
        self._pose = root  # reused: building a SAPIEN pose per step costs more than setting one

    def move_tcp(self, delta: Vector) -> None:
        """Aim the tool centre `delta` [3] metres from where it is, keeping its rotation. Out of reach: aim to stay."""
        tcp, joints = self._world.tcp.pose, self._world.robot.qpos
        rotation = self._w * tcp.q
        self._pose.set_p(delta + (self._minus_base + self._w * tcp.p * self._w))
        self._pose.set_q(-rotation if rotation[0] < 0 else rotation)
        found, success, _ = self._model.compute_inverse_kinematics(
            self._tcp_index,
            self._pose,
            initial_qpos=joints,
            active_qmask=self._arm_mask,
            max_iterations=_IK_ITERATIONS,
        )
        self.move_joints((found.astype(np.float32) if success else joints)[: len(ARM_JOINTS)])

    def move_joints(self, targets: Vector) -> None:
        """Aim the seven arm joints at `targets` [7], rad."""
        for joint, target in zip(self._arm_joints, targets):
            joint.set_drive_target(target)

    def move_gripper(self, opening: float) -> None:
        """Aim both fingers at `opening` in [-1 closed, 1 open]."""
        target = _GRIPPER_MIDDLE + _GRIPPER_HALF * np.float32(opening)
        for joint in self._finger_joints:
            joint.set_drive_target(target)

    def advance(self) -> None:
        """Let one control period of physics pass."""
        for _ in range(self._world.substeps):
            self._world.physics.step()
