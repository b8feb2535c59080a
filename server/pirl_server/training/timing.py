"""Wall time of a run by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class PhaseTimer:
    """Wall time by what it went into."""

    def __init__(self) -> None:
        self._seconds = {"rollout": 0.0, "learner": 0.0}
        self._last = dict(self._seconds)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Account what happens inside."""
        start = time.perf_counter()
        yield
        self._last[name] = time.perf_counter() - start
        self._seconds[name] += self._last[name]

    def shares(self) -> dict[str, float]:
        """Seconds by part and the learner's share of the wall time."""
        total = sum(self._seconds.values())
        return {f"{name}_s": value for name, value in self._seconds.items()} | {
            "learner_share": self._seconds["learner"] / total
        }

    def rates(self, env_steps: int, decisions: float) -> dict[str, float]:
        """What the last rollout and the last update made of their seconds."""
        return {
            "env_steps_per_second": env_steps / self._last["rollout"],
            "samples_per_second": decisions / self._last["learner"],
        }
