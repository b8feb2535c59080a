"""Summary of one run_episodes session, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode."""

    seed: int
    episode_id: str
    instruction: str
    success: bool
    reason: str
    """success | time_limit"""
    steps: int
    """actions that the arm reported"""
    seconds: float
    path: str
    """relative to the server's store"""

    def line(self, number: int, total: int) -> str:
        """One line for a person."""
        outcome = "success" if self.success else "failure"
        return f"episode {number}/{total} seed {self.seed}: {outcome} after {self.steps} steps, {self.seconds:.1f} s"


def write_summary(path: str | Path, records: list[EpisodeRecord], complete: bool, wall_s: float) -> None:
    """Write episodes and success rate; `complete` is False when the sitting was cut short.

    `wall_s`: from the first reset to the last end, s.
    """
    successes = sum(record.success for record in records)
    summary = {
        "complete": complete,
        "episodes": [asdict(record) for record in records],
        "wall_s": wall_s,
        "successes": successes,
        "success_rate": successes / len(records) if records else None,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(summary, indent=2) + "\n")
