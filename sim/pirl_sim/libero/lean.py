"""LIBERO's control step with one pass of the physics per substep instead of three: for learning, not for reports.

robosuite 1.4.0 runs MuJoCo's forward dynamics twice more in each of the 25 substeps, for numbers that the step itself
has, and samples some forty observations. The torques are from robosuite's own controller (operational space, Khatib
1987). Not equal to the bit, because each further pass also moves the start of the contact solver:
tests/sim/test_libero_real.py states the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUBSTEPS = 25
OBSERVED = 23
"""the substep, from 0, after which robosuite samples what it observes"""


class LeanStepper:
    """Steps LIBERO's environment `base`, the one within its `ControlEnv`. A hard reset needs another one."""

    def __init__(self, base: Any) -> None:
        import mujoco

        self._mujoco, self._base = mujoco, base
        self._model, self._data = base.sim.model._model, base.sim.data._data
        robot = base.robots[0]
        self._robot, self._controller = robot, robot.controller
        self._site = robot.eef_site_id
        self._hand = base.sim.model.body_name2id(robot.robot_model.eef_name)
        self._fingers = list(robot._ref_gripper_joint_pos_indexes)
        self._joints = list(robot._ref_joint_actuator_indexes)
        self._speeds = list(self._controller.qvel_index)
        self._positions = list(self._controller.qpos_index)
        self._low, self._high = robot.torque_limits
        size = self._model.nv
        self._moved, self._turned = np.zeros((3, size)), np.zeros((3, size))
        self._mass = np.zeros((size, size))

    def step(self, action: NDArray[np.float64]) -> tuple[Mapping[str, NDArray[np.float64]], bool]:
        """Play an action [7] in [-1, 1]; return what LIBERO observes of the hand, and whether the task is solved.

        By LIBERO's names: position [3] m, quaternion [4] xyzw, both fingers [2] m; MuJoCo's world frame.
        """
        mujoco, model, data, controller = self._mujoco, self._model, self._data, self._controller
        observation: Mapping[str, NDArray[np.float64]] = {}
        for substep in range(SUBSTEPS):
            mujoco.mj_step1(model, data)
            if controller.new_update:  # not in the first substep after a reset: robosuite has not looked since
                self._read()
            if substep == 0:
                controller.set_goal(action[:6])
            torques = np.clip(controller.run_controller(), self._low, self._high)
            self._robot.grip_action(gripper=self._robot.gripper, gripper_action=action[6:])
            data.ctrl[self._joints] = torques
            mujoco.mj_step2(model, data)
            if substep == OBSERVED:
                observation = self._observation()
        self._base._post_process()
        return observation, bool(self._base._check_success())

    def _read(self) -> None:
        """Robosuite's `Controller.update` without its pass of the physics."""
        mujoco, data, controller = self._mujoco, self._data, self._controller
        mujoco.mj_jacSite(self._model, data, self._moved, self._turned, self._site)
        mujoco.mj_fullM(self._model, self._mass, data.qM)
        controller.ee_pos = data.site_xpos[self._site].copy()
        controller.ee_ori_mat = data.site_xmat[self._site].reshape(3, 3).copy()
        controller.ee_pos_vel, controller.ee_ori_vel = self._moved @ data.qvel, self._turned @ data.qvel
        controller.joint_pos, controller.joint_vel = data.qpos[self._positions], data.qvel[self._speeds]
        controller.J_pos = np.ascontiguousarray(self._moved[:, self._speeds])
        controller.J_ori = np.ascontiguousarray(self._turned[:, self._speeds])
        controller.J_full = np.vstack([controller.J_pos, controller.J_ori])
        controller.mass_matrix = self._mass[np.ix_(self._speeds, self._speeds)]
        controller.new_update = False

    def _observation(self) -> dict[str, NDArray[np.float64]]:
        w, x, y, z = self._data.xquat[self._hand]
        return {
            "robot0_eef_pos": self._data.site_xpos[self._site].copy(),
            "robot0_eef_quat": np.array([x, y, z, w]),
            "robot0_gripper_qpos": self._data.qpos[self._fingers],
        }
