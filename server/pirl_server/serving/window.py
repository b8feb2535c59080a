"""How long a batch waits for more rows: not at all for a robot that is alone, a few milliseconds among several."""

from __future__ import annotations

ACTIVE_S = 1.0
"""a robot that asked within this time may ask again any moment"""
_SHARE = 0.1
_LONGEST_S = 0.01
"""after a batch: this share of its time, and no longer, for those who were just answered"""


class Window:
    """Knows which robots are active. Times are `time.monotonic()`; not thread-safe."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._asked: dict[str, float] = {}
        self._together_at = 0.0

    def saw(self, robot_id: str, now: float) -> None:
        """Note that a robot asked."""
        self._asked.pop(robot_id, None)
        self._asked[robot_id] = now  # in the order of time, so that the silent ones stand first

    def ended(self, took_s: float, now: float) -> None:
        """Note that a batch was answered. Robots that wait for their answer ask anew a few milliseconds later.

        Not waited for, they would miss the next batch and take turns with the others: two batches per answer.
        """
        self._together_at = now + (min(max(self._wait_s, _SHARE * took_s), _LONGEST_S) if self._wait_s else 0.0)

    def remaining_s(self, waiting: int, rows: int, since: float, now: float) -> float:
        """Seconds until the batch should start; 0: now.

        `waiting` robots wait, the first `since` then; a batch holds `rows`. There is nobody to wait for when every
        active robot waits already, and no reason to when the batch is full.
        """
        for robot_id in list(self._asked):
            if now - self._asked[robot_id] <= ACTIVE_S:
                break
            del self._asked[robot_id]
        if waiting >= min(rows, len(self._asked)):
            return 0.0
        return max(0.0, max(since + self._wait_s, self._together_at) - now)
