"""A simulated arm driven like a real one: absolute joint targets at 20 Hz, sensors read in between.

A ROS node owns one and plays the robot with it. There is no episode end here: the arm moves on until `reset`.
"""

from __future__ import annotations

import numpy as np

from pirl_contract.schema import Image, Vector
from pirl_sim.maniskill.controller import Arm
from pirl_sim.maniskill.grasp import Feel
from pirl_sim.maniskill.initial_states import place
from pirl_sim.maniskill.panda import ARM_JOINTS, ARM_LIMITS, GOAL, JOINTS, OBJECT, QPOS, QVEL, TCP, panda_contract
from pirl_sim.maniskill.rewards import PROGRESS
from pirl_sim.maniskill.tasks import task
from pirl_sim.maniskill.world import World


class SimRobot:
    """ManiSkill's Panda under pd_joint_pos control. One thread at a time; poses are in the world frame, wxyz."""

    joint_names = JOINTS

    def __init__(self, world: World, image_size: int) -> None:
        self.contract = panda_contract(cameras=True, image_size=image_size)
        self.success = False
        """whether the task's success condition has held at any step since `reset`"""
        self._world, self._arm, self._closed = world, Arm(world), False
        self._progress, self._feel = PROGRESS[world.task.id], Feel(world)
        self._images: dict[str, Image] = {}
        self._rendered_at: Vector | None = None
        self.reset(0)

    def reset(self, seed: int) -> str:
        """Place robot, object and goal for `seed`, at rest and holding; return the instruction."""
        place(self._world, seed)
        self.success = False
        self._arm.move_joints(self._world.robot.qpos[: len(ARM_JOINTS)])
        self._arm.move_gripper(1.0)
        self._state = self._world.state()
        return self._world.task.instruction(seed)

    def step(self, joint_targets: Vector | None, gripper: float | None) -> None:
        """Let 50 ms pass towards `joint_targets` [7] rad and `gripper` in [-1 closed, 1 open]; None keeps the last.

        Targets outside the joint limits are clamped, as an arm's driver does. Raises ValueError for a wrong shape or
        a value that is not finite; the arm then keeps its last targets and no time passes.
        """
        targets = None if joint_targets is None else _checked(joint_targets)
        if gripper is not None:
            if not np.isfinite(gripper):
                raise ValueError(f"the gripper target must be a number in [-1, 1], got {gripper}")
            self._arm.move_gripper(float(np.clip(gripper, -1.0, 1.0)))
        if targets is not None:
            self._arm.move_joints(targets)
        self._arm.advance()
        self._state = self._world.state()
        self.success = self.success or self._progress(self._state, self._feel)[1]

    @property
    def state(self) -> Vector:
        """[35] as in `contract`."""
        return self._state.copy()

    @property
    def joint_positions(self) -> Vector:
        """[9] rad, then m for the two fingers."""
        return self._state[QPOS].copy()

    @property
    def joint_velocities(self) -> Vector:
        """[9] rad/s, then m/s."""
        return self._state[QVEL].copy()

    @property
    def tcp_pose(self) -> Vector:
        """[7] m and wxyz."""
        return self._state[TCP].copy()

    @property
    def object_pose(self) -> Vector:
        """[7] m and wxyz."""
        return self._state[OBJECT].copy()

    @property
    def goal_position(self) -> Vector:
        """[3] m."""
        return self._state[GOAL].copy()

    def images(self) -> dict[str, Image]:
        """Return the cameras by name, RGB [height, width, 3]; what stands still is not rendered again."""
        poses = self._world.poses()
        if self._rendered_at is None or not np.array_equal(poses, self._rendered_at):
            self._images, self._rendered_at = self._world.images(), poses
        return {name: image.copy() for name, image in self._images.items()}

    def close(self) -> None:
        """Free the simulator. Calling it twice changes nothing."""
        if not self._closed:
            self._world.close()
        self._closed = True


def make_robot(task_id: str, image_size: int = 64) -> SimRobot:
    """Return the arm in the scene of a task, with one camera, reset to seed 0.

    Raises ValueError for an unknown task, RuntimeError saying what to install when Vulkan is missing.
    """
    return SimRobot(World(task(task_id), cameras=True, image_size=image_size), image_size)


def _checked(joint_targets: Vector) -> Vector:
    targets = np.asarray(joint_targets, np.float32)
    if targets.shape != (len(ARM_JOINTS),):
        raise ValueError(f"joint targets have shape ({len(ARM_JOINTS)},), got {targets.shape}")
    if not np.isfinite(targets).all():
        raise ValueError(f"joint targets must be finite, got {targets.tolist()}")
    return np.clip(targets, *ARM_LIMITS.T.astype(np.float32))
