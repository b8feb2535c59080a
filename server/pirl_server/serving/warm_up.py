"""Warms a policy up: one draw per step, so that the device serves robots between two of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from pirl_contract import Contract, Observation
from pirl_server.policy.served_policy import PolicyRequest, ServedPolicy

Shape = tuple[int, ...]
MOST_ALONE = 6
"""draws for one robot"""
CheckSpeed = Callable[[ServedPolicy, float], None]
"""raises ValueError for a policy whose chunk takes so many milliseconds"""


def at_any_speed(policy: ServedPolicy, alone_ms: float) -> None:
    """Take the policy, however slow it is."""


class WarmUp:
    """The draws of one policy, one per `step`: between two of them the device may serve robots."""

    def __init__(self, policy: ServedPolicy, sizes: Sequence[int], check_speed: CheckSpeed) -> None:
        """Each mode alone, then a batch of each of `sizes` above 1 with both modes in it.

        `check_speed` rejects the policy, before the batches, by what the fastest of the draws for one robot took.
        """
        self.policy, self._check_speed = policy, check_speed
        self.done: Future[None] = Future()
        self.shape: Shape = ()
        """of a chain, once the first step is done"""
        self.draw_ms = 0.0
        """of the last step"""
        self.alone_ms = math.inf
        """of the fastest of the draws for one robot, since the first may compile"""
        self._alone = 0
        observation = dummy_observation(policy.contract, next(iter(policy.instructions), "warm up"))
        asks = [PolicyRequest(observation, explore=row % 2 == 0, seed=row) for row in range(max(*sizes, 2))]
        self._batches = [asks[:1], asks[1:2], *(asks[:size] for size in sizes if size > 1)]

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return not self._batches

    def step(self) -> None:
        """Draw the next batch. Raises what the policy raises."""
        started, asks = time.monotonic(), self._batches.pop(0)
        for answer in self.policy.sample_batch(asks):
            if isinstance(answer, ValueError):
                raise answer
            self.shape = answer.chain.shape
        self.draw_ms = 1000 * (time.monotonic() - started)
        if len(asks) == 1:
            self._alone, self.alone_ms = self._alone + 1, min(self.alone_ms, self.draw_ms)
            if self._alone > 1:
                self._judge_speed(asks)

    def _judge_speed(self, asks: list[PolicyRequest]) -> None:
        """Draw once more where it seems too slow: other work on the machine may have delayed it."""
        try:
            self._check_speed(self.policy, self.alone_ms)
        except ValueError:
            if self._alone == MOST_ALONE:
                raise
            self._batches.insert(0, asks)


def dummy_observation(contract: Contract, instruction: str) -> Observation:
    """Return black images and a zero state that fit the contract."""
    images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in contract.cameras}
    return Observation(images, np.zeros(contract.state_dim, np.float32), instruction)
