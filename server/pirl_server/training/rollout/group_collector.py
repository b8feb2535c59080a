"""Rollouts for GRPO: whole episodes, in groups that begin in the same initial state.

Shape letters: N environments.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector, Decided, Ended, Played


class GroupCollector(Collector):
    """As `Collector`; neighbours in groups of `PpoConfig.group` meet the same initial state with noise of their own."""

    @torch.inference_mode()
    def collect(self, decisions: int) -> DecisionBatch:
        """Play `decisions` episodes in each environment; episodes lie side by side, groups stay together."""
        self._refresh()
        return DecisionBatch.merge([self._round() for _ in range(decisions)])

    def _round(self) -> DecisionBatch:
        """One episode in each environment. What follows its end is not valid, and not played."""
        for first in range(0, len(self._lanes), self._config.group):
            seed = next(self._seeds)
            for lane in self._lanes[first : first + self._config.group]:
                lane.restart(seed)
        live = np.ones(len(self._lanes), np.bool_)
        rows: list[tuple[Decided, Played]] = []
        for _ in range(math.ceil(self._max_steps / self._policy.execute_horizon)):
            if not live.any():
                rows.append((rows[-1][0], Played(np.zeros(len(live), np.float32), live, live)))
                continue
            decided = self._decide()
            rows.append((decided, self._play(decided, live)))
            live = live & ~rows[-1][1].done_N
        ended = [Ended(lane.success, lane.steps, lane.total) for lane in self._lanes]
        return self._batch(rows, ended, sum(lane.steps for lane in self._lanes))

    def _play(self, decided: Decided, live_N: np.ndarray) -> Played:
        reward_N, done_N = np.zeros(len(live_N), np.float32), np.zeros(len(live_N), np.bool_)
        for number, (lane, chunk) in enumerate(zip(self._lanes, self._chunks(decided.found))):
            if live_N[number]:
                reward_N[number], done_N[number], _ = lane.play(chunk)
        return Played(reward_N, done_N, live_N)
