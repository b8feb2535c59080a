"""An environment that costs nothing: noise as images and states, so that the learner alone is measured."""

from __future__ import annotations

import numpy as np

from pirl_contract import Contract, Observation, StepResult


class PicturesEnv:
    """Episodes of `length` steps of a contract; every reward is noise."""

    def __init__(self, contract: Contract, instruction: str, length: int) -> None:
        self.contract, self._instruction, self._length = contract, instruction, length

    def reset(self, seed: int) -> Observation:
        """Begin an episode."""
        self._random, self._steps = np.random.default_rng(seed), 0
        return self.observe()

    def step(self, action: np.ndarray) -> StepResult:
        """One control step."""
        assert action.shape == (self.contract.action_dim,)
        self._steps += 1
        return StepResult(float(self._random.normal()), False, self._steps >= self._length, False)

    def observe(self) -> Observation:
        """The next noise."""
        draw = self._random.integers
        images = {
            each.name: draw(256, size=(each.height, each.width, 3), dtype=np.uint8) for each in self.contract.cameras
        }
        state = self._random.normal(size=self.contract.state_dim).astype(np.float32) * 0.1
        return Observation(images, state, self._instruction, robot_id="bench")

    def close(self) -> None:
        """Nothing is open."""
