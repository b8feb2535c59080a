"""Two steppers for one control step: ManiSkill's own (the reference) and a lean one (same physics, no torch)."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from pirl_contract.schema import Vector
from pirl_sim.maniskill.controller import Arm
from pirl_sim.maniskill.grasp import AtRest, Feel
from pirl_sim.maniskill.initial_states import place
from pirl_sim.maniskill.panda import GRIPPER, TCP_DELTA, TCP_STEP_LIMIT
from pirl_sim.maniskill.rewards import PROGRESS, Progress
from pirl_sim.maniskill.world import World

StepperName = Literal["lean", "maniskill"]


class Stepper(Protocol):
    """Starts episodes of a `World` and passes control steps in it; both return (phi, success) afterwards."""

    def reset(self, seed: int) -> Progress:
        """Start the episode of `seed`."""

    def step(self, action: Vector) -> Progress:
        """Play an action [4] whose entries are in [-1, 1]."""


def _at_reset(world: World) -> Progress:
    return PROGRESS[world.task.id](world.state(), AtRest())


class LeanStepper:
    """The fast stepper: 5 to 10 times ManiSkill's own, on the same SAPIEN scene."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._arm = Arm(world)
        self._progress, self._feel = PROGRESS[world.task.id], Feel(world)

    def reset(self, seed: int) -> Progress:
        """Place everything as ManiSkill's reset does."""
        place(self._world, seed)
        return _at_reset(self._world)

    def step(self, action: Vector) -> Progress:
        """Set the targets, let 5 physics steps pass. Action [4] in [-1, 1]."""
        self._arm.move_tcp(np.float32(TCP_STEP_LIMIT) * action[TCP_DELTA])
        self._arm.move_gripper(action[GRIPPER])
        self._arm.advance()
        return self._progress(self._world.state(), self._feel)


class ManiSkillStepper:
    """The reference: ManiSkill's gym step and reset. Reported success rates go through this one."""

    def __init__(self, world: World) -> None:
        import torch

        self._world = world
        self._inference_mode = torch.inference_mode

    def reset(self, seed: int) -> Progress:
        """Call ManiSkill's reset."""
        with self._inference_mode():
            self._world.gym.reset(seed=seed)
        return _at_reset(self._world)

    def step(self, action: Vector) -> Progress:
        """Call ManiSkill's step. Action [4] in [-1, 1]."""
        with self._inference_mode():
            _, phi, _, _, info = self._world.gym.step(action)
            return float(phi[0]), bool(info["success"][0])


def make_stepper(name: StepperName, world: World) -> Stepper:
    """Return the stepper of this name. Raises ValueError for any other name."""
    if name == "lean":
        return LeanStepper(world)
    if name == "maniskill":
        return ManiSkillStepper(world)
    raise ValueError(f"unknown stepper '{name}'; known: lean, maniskill")
