"""A control for policies that see: the arm is where it is, the images are of another scene."""

from __future__ import annotations

from dataclasses import replace

from pirl_contract import Observation, StepResult
from pirl_contract.schema import Vector
from pirl_server import simulation

SCENE = 500_000
"""reset seed of what is shown; no policy has learnt from it"""


class Elsewhere:
    """The task by the simulator's own step. A policy that does not need its images does as well as before."""

    def __init__(self, task: str) -> None:
        self._env = simulation.reference_env(task, sees=True)
        self.contract = self._env.contract
        self._images = self._env.reset(SCENE).images

    def reset(self, seed: int) -> Observation:
        return replace(self._env.reset(seed), images=self._images)

    def observe(self) -> Observation:
        return replace(self._env.observe(), images=self._images)

    def step(self, action: Vector) -> StepResult:
        return self._env.step(action)

    def close(self) -> None:
        self._env.close()
