"""Robots with three joints and a governor: they follow chunks over gRPC, alter what is too fast, and are labelled."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
from toy_policy import CONTRACT, EXECUTED, JOINTS, SENTENCE

from pirl_contract import ActionChunk, Alteration, Observation, StepOutcome
from pirl_contract.client import PolicyClient

CHUNKS = 10
"""of an episode"""
FASTEST, FURTHEST, NEAR = 0.12, 2.0, 0.08
"""radians in one step; of the workspace; of the goal"""


class ToyRobot(threading.Thread):
    """Runs episodes until it is stopped.

    `pace` is how many times faster than its rate it moves, 0: as fast as it can; a share `slips` of its episodes fails
    whatever the policy does.
    """

    def __init__(self, address: str, number: int, pace: float, slips: float) -> None:
        super().__init__(name=f"arm-{number}", daemon=True)
        self._client = PolicyClient(address, self.name, timeout_s=20.0, mode="deterministic")
        self._rng, self.pace = np.random.default_rng(number), pace
        self._slips = slips
        self._stopping = threading.Event()
        self.episodes, self.seen = Counter[str](), Counter[str]()
        """finished episodes and answered requests by policy version"""

    def run(self) -> None:
        """Drive."""
        self._client.info()
        while not self._stopping.is_set():
            self._episode()
        self._client.close()

    def stop(self) -> None:
        """End after the chunk that is being played."""
        self._stopping.set()

    def _episode(self) -> None:
        q, goal = self._rng.uniform(-1.0, 1.0, JOINTS), self._rng.uniform(-1.0, 1.0, JOINTS)
        self._client.start_episode(CONTRACT, SENTENCE)
        outcomes, versions = list[StepOutcome](), set[str]()
        for _ in range(CHUNKS):
            state = np.concatenate([q, goal]).astype(np.float32)
            try:
                chunk = self._client.infer(Observation({}, state, SENTENCE, self.name), outcomes=outcomes)
            except (RuntimeError, ConnectionError, TimeoutError, ValueError):
                outcomes = []
                self._wait()  # it holds
                continue
            versions.add(chunk.policy_version)
            self.seen[chunk.policy_version] += 1
            q, outcomes = self._play(chunk, q, goal)
            self._wait()
            if self._stopping.is_set():
                break
        reached = bool(np.abs(goal - q).max() < NEAR) and self._rng.random() > self._slips
        self._client.end_episode("success" if reached else "failure", "operator", "operator", outcomes=outcomes)
        if len(versions) == 1:
            self.episodes[versions.pop()] += 1

    def _play(self, chunk: ActionChunk, q: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, list[StepOutcome]]:
        outcomes = []
        for index, action in enumerate(chunk.actions[:EXECUTED]):
            allowed = np.clip(q + np.clip(action - q, -FASTEST, FASTEST), -FURTHEST, FURTHEST)
            altered = Alteration.NONE if np.allclose(allowed, action, atol=1e-5) else Alteration.LIMIT
            q = allowed
            state = np.concatenate([q, goal]).astype(np.float32)
            outcomes.append(StepOutcome(chunk.chunk_id, index, allowed.astype(np.float32), state, alterations=altered))
        return q, outcomes

    def _wait(self) -> None:
        if self.pace:
            time.sleep(EXECUTED / CONTRACT.rate_hz / self.pace)
