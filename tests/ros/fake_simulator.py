"""A simulated arm without a simulator: joints go half way to their target per step. Loaded by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pirl_ros.control.kinematics import Chain
from pirl_ros.profile.profile import load_profile

PROFILE = load_profile(Path(__file__).parents[2] / "launch" / "params" / "panda_sim.yaml")
READY = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4])
UNTURNED = np.array([1.0, 0.0, 0.0, 0.0])
FAR = 0.1
"""m along x from the start at which the task counts as solved"""


class FakeArm:
    """Success: the tool has moved `FAR` along x. The image's grey tells how many steps were taken since reset."""

    contract = PROFILE.contract
    joint_names = tuple(joint.name for joint in PROFILE.joints)

    def __init__(self) -> None:
        self._chain = Chain.from_table(PROFILE.kinematics)
        self._start = self._chain.forward(READY)[0]
        self.reset(0)

    def reset(self, seed: int) -> str:
        self._joints, self._target, self._steps, self._fingers = READY.copy(), READY.copy(), 0, 0.04
        return f"task of seed {seed}"

    def step(self, joint_targets: np.ndarray | None, gripper: float | None) -> None:
        if joint_targets is not None:
            self._target = np.asarray(joint_targets, float)
        if gripper is not None:
            self._fingers = 0.02 + 0.02 * gripper
        self._joints = self._joints + 0.5 * (self._target - self._joints)
        self._steps += 1

    @property
    def success(self) -> bool:
        return bool(self.tcp_pose[0] - self._start[0] > FAR)

    @property
    def joint_positions(self) -> np.ndarray:
        return np.concatenate([self._joints, [self._fingers] * 2]).astype(np.float32)

    @property
    def joint_velocities(self) -> np.ndarray:
        return np.zeros(9, np.float32)

    @property
    def tcp_pose(self) -> np.ndarray:
        return np.concatenate([self._chain.forward(self._joints)[0], UNTURNED]).astype(np.float32)

    @property
    def object_pose(self) -> np.ndarray:
        return np.concatenate([[0.1, 0.2, 0.3], UNTURNED]).astype(np.float32)

    @property
    def goal_position(self) -> np.ndarray:
        return np.array([0.4, 0.5, 0.6], np.float32)

    def images(self) -> dict[str, np.ndarray]:
        return {"base": np.full((64, 64, 3), self._steps % 256, np.uint8)}

    def close(self) -> None:
        pass


def make_robot(task: str, image_size: int) -> FakeArm:
    if task != "fake":
        raise ValueError(f"unknown task '{task}'; known: fake")
    assert image_size == 64
    return FakeArm()


class SlowArm(FakeArm):
    """A period is longer than a test's patience: it takes a step because it is commanded, or not at all."""

    contract = replace(PROFILE.contract, rate_hz=0.01)


def make_slow_robot(task: str, image_size: int) -> SlowArm:
    return SlowArm()
