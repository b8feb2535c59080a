"""Warms a policy up: one draw per step, so that the device serves robots between two of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from pirl_contract import Contract, Observation
from pirl_server.policy.served_policy import PolicyRequest, ServedPolicy

Shape = tuple[int, ...]


class WarmUp:
    """The draws of one policy, one per `step`: between two of them the device may serve robots."""

    def __init__(self, policy: ServedPolicy, sizes: Sequence[int]) -> None:
        """Each mode alone, then a batch of each of `sizes` above 1 with both modes in it."""
        self.policy = policy
        self.done: Future[None] = Future()
        self.shape: Shape = ()
        """of a chain, once the first step is done"""
        self.draw_ms = 0.0
        """of the last step"""
        observation = dummy_observation(policy.contract, next(iter(policy.instructions), "warm up"))
        asks = [PolicyRequest(observation, explore=row % 2 == 0, seed=row) for row in range(max(*sizes, 2))]
        self._batches = [asks[:1], asks[1:2], *(asks[:size] for size in sizes if size > 1)]

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return not self._batches

    def step(self) -> None:
        """Draw the next batch. Raises what the policy raises."""
        started = time.monotonic()
        for answer in self.policy.sample_batch(self._batches.pop(0)):
            if isinstance(answer, ValueError):
                raise answer
            self.shape = answer.chain.shape
        self.draw_ms = 1000 * (time.monotonic() - started)


def dummy_observation(contract: Contract, instruction: str) -> Observation:
    """Return black images and a zero state that fit the contract."""
    images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in contract.cameras}
    return Observation(images, np.zeros(contract.state_dim, np.float32), instruction)
