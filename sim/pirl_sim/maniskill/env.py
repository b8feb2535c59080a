"""The simulated Panda as an `Env`: `make_env`."""

from __future__ import annotations

import numpy as np

from pirl_contract.protocols import StepResult
from pirl_contract.schema import Observation, Vector
from pirl_sim.action import normalised
from pirl_sim.maniskill.panda import TCP_STEP_LIMIT, panda_contract
from pirl_sim.maniskill.steppers import Stepper, StepperName, make_stepper
from pirl_sim.maniskill.tasks import task
from pirl_sim.maniskill.world import World

SUCCESS_REWARD = 1.0
SHAPING = 0.5
"""weight of the change of phi; telescoping, so lingering near the goal earns nothing"""
_ACTION_SCALE = np.array([TCP_STEP_LIMIT] * 3 + [1.0], np.float32)


class PandaEnv:
    """`pirl_contract.protocols.Env` over a `World`.

    Reward per control step: 1 at success + 0.5 (phi after - phi before). The episode ends at the first success
    (terminated) or after `Task.max_steps` control steps (truncated). Actions outside the contract's limits are clipped.
    """

    def __init__(self, world: World, stepper: Stepper, *, cameras: bool, image_size: int) -> None:
        self.contract = panda_contract(cameras, image_size)
        self.task = world.task
        self.instruction = world.task.instructions[0]
        self._world, self._stepper, self._cameras = world, stepper, cameras
        self._phi, self._steps = 0.0, 0
        self._running, self._closed, self._ever_reset = False, False, False

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`: same initial state and instruction for the same seed, with either stepper.

        Raises RuntimeError after close.
        """
        if self._closed:
            raise RuntimeError("reset after close: create a new environment")
        self._phi, _ = self._stepper.reset(seed)
        self._steps, self._running, self._ever_reset = 0, True, True
        self.instruction = self.task.instruction(seed)
        return self.observe()

    def step(self, action: Vector) -> StepResult:
        """Play one action [4] (m, m, m, 1) for 50 ms. Raises RuntimeError without a running episode."""
        if not self._running:
            raise RuntimeError("step without a running episode: call reset first")
        phi, success = self._stepper.step(normalised(action, _ACTION_SCALE))
        self._steps += 1
        reward = SUCCESS_REWARD * success + SHAPING * (phi - self._phi)
        self._phi = phi
        truncated = not success and self._steps >= self.task.max_steps
        self._running = not (success or truncated)
        return StepResult(reward=reward, terminated=success, truncated=truncated, success=success)

    def observe(self) -> Observation:
        """Return the state, and render the camera if there is one.

        Raises RuntimeError before the first reset and after close.
        """
        if not self._ever_reset or self._closed:
            raise RuntimeError("observe without an episode: call reset first")
        images = self._world.images() if self._cameras else {}
        return Observation(images, self._world.state(), self.instruction, robot_id=self.contract.robot)

    def close(self) -> None:
        """Free the scene."""
        if not self._closed:
            self._world.close()
        self._closed, self._running = True, False


def make_env(task_id: str, *, stepper: StepperName = "lean", cameras: bool = False, image_size: int = 64) -> PandaEnv:
    """Return the environment of a task.

    "maniskill" steps ManiSkill itself and is the reference for every reported number; "lean" is several times faster
    and tested against it. With `cameras` a Vulkan driver is needed. Raises ValueError for an unknown task or stepper,
    RuntimeError, saying what to install, when cameras are asked for and Vulkan is missing.
    """
    world = World(task(task_id), cameras=cameras, image_size=image_size)
    return PandaEnv(world, make_stepper(stepper, world), cameras=cameras, image_size=image_size)
