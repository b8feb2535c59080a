"""One environment on its way through episodes, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pirl_contract import Env, Observation
from pirl_server.policy.processor import Array


@dataclass
class Lane:
    """An environment, the reset seeds it takes, and where its episode stands."""

    env: Env
    seeds: Iterator[int]
    observation: Observation
    steps: int = 0
    success: bool = False
    total: float = 0.0
    """reward of the episode so far"""

    def play(self, actions_HD: Array) -> tuple[float, bool, int]:
        """Execute a chunk; return its summed reward, whether the episode ended and the control steps it took."""
        total, taken, ended = 0.0, 0, False
        for action in actions_HD:
            result = self.env.step(action)
            total, taken = total + result.reward, taken + 1
            self.success = self.success or result.success
            if ended := result.terminated or result.truncated:
                break
        self.steps += taken
        self.total += total
        if not ended:
            self.observation = self.env.observe()
        return total, ended, taken

    def restart(self, seed: int | None = None) -> None:
        """Begin the next episode: of this environment's seeds, or of the one given."""
        self.observation = self.env.reset(next(self.seeds) if seed is None else seed)
        self.steps, self.success, self.total = 0, False, 0.0
