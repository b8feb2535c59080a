"""Another project's simulator as an `Env`: its own reset, step and success; the reward is success only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pirl_contract.contract import Contract
from pirl_contract.protocols import StepResult
from pirl_contract.schema import Image, Observation, Vector
from pirl_sim.action import normalised
from pirl_sim.maniskill.env import SUCCESS_REWARD


class Scene(Protocol):
    """One task of a simulator, loaded."""

    def reset(self, episode: int, seed: int) -> None:
        """Load the stored initial state `episode`; everything else that is drawn is a function of `seed`."""

    def step(self, action: Vector) -> bool:
        """Play an action [D] in the contract's units for one control period; return whether the task is solved."""

    def state(self) -> Vector:
        """Return the state [S] of the last reset or step."""

    def images(self) -> dict[str, Image]:
        """Return the cameras by name, RGB [height, width, 3]; empty without cameras."""

    def close(self) -> None:
        """Free it."""


class SparseEnv:
    """`pirl_contract.protocols.Env` over the scenes of a suite, one at a time: another task needs another scene.

    Reward per control step: 1 at success, else 0. The episode ends at the first success (terminated) or after the
    task's `max_steps` control steps (truncated). Actions outside the contract's limits, which are symmetric, are
    clipped.
    """

    def __init__(self, suite: SparseSuite, contract: Contract, make_scene: Callable[[SparseTask], Scene]) -> None:
        self.contract, self.suite = contract, suite
        self.instruction = suite.instructions[0]
        self._make_scene, self._scale = make_scene, np.array([field.high for field in contract.action], np.float32)
        self._scene: Scene | None = None
        self._task = suite.tasks[0]
        self._steps, self._running, self._closed = 0, False, False

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`: it picks the task, then its initial state. Raises RuntimeError after close."""
        if self._closed:
            raise RuntimeError("reset after close: create a new environment")
        self._running = False
        scene = self._scene_of(self.suite.task_of(seed))
        scene.reset(self.suite.episode_of(seed), seed)
        self._steps, self._running = 0, True
        self.instruction = self._task.instruction
        return self.observe()

    def step(self, action: Vector) -> StepResult:
        """Play one action [D], as in `contract`, for one control period.

        Raises RuntimeError without a running episode.
        """
        if self._scene is None or not self._running:
            raise RuntimeError("step without a running episode: call reset first")
        success = self._scene.step(normalised(action, self._scale) * self._scale)
        self._steps += 1
        truncated = not success and self._steps >= self._task.max_steps
        self._running = not (success or truncated)
        reward = SUCCESS_REWARD * success
        return StepResult(reward=reward, terminated=success, truncated=truncated, success=success)

    def observe(self) -> Observation:
        """Return the state, and the cameras if there are any.

        Raises RuntimeError before the first reset and after close.
        """
        if self._scene is None:
            raise RuntimeError("observe without an episode: call reset first")
        return Observation(self._scene.images(), self._scene.state(), self.instruction, robot_id=self.contract.robot)

    def close(self) -> None:
        """Free the scene."""
        self._leave()
        self._closed, self._running = True, False

    def _scene_of(self, task: SparseTask) -> Scene:
        if self._scene is None or task != self._task:
            self._leave()
            self._scene, self._task = self._make_scene(task), task
        return self._scene

    def _leave(self) -> None:
        scene, self._scene = self._scene, None
        if scene is not None:
            scene.close()


@dataclass(frozen=True)
class SparseTask:
    """One task of another project's benchmark."""

    name: str
    """what stands after the slash of its task id"""
    instruction: str
    """the benchmark's own sentence"""
    max_steps: int
    """control steps of one episode"""


@dataclass(frozen=True)
class SparseSuite:
    """One task or several that a policy distinguishes by their instructions."""

    id: str
    tasks: tuple[SparseTask, ...]

    @property
    def instructions(self) -> tuple[str, ...]:
        """One sentence per task, in their order."""
        return tuple(task.instruction for task in self.tasks)

    @property
    def max_steps(self) -> int:
        """Control steps of the longest episode of any of them."""
        return max(task.max_steps for task in self.tasks)

    def task_of(self, seed: int) -> SparseTask:
        """Return the task that the episode of `seed` is of: the suite's in turn."""
        return self.tasks[seed % len(self.tasks)]

    def episode_of(self, seed: int) -> int:
        """Return the number of the stored initial state, to be taken modulo how many the task has."""
        return seed // len(self.tasks)
