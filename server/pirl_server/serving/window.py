"""How long a batch waits for more rows: not at all for a robot that is alone, a few milliseconds among several."""

from __future__ import annotations

ACTIVE_S = 1.0
"""a robot that asked within this time may ask again any moment"""


class Window:
    """Knows which robots are active. Times are `time.monotonic()`; not thread-safe."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._asked: dict[str, float] = {}

    def saw(self, robot_id: str, now: float) -> None:
        """Note that a robot asked."""
        self._asked.pop(robot_id, None)
        self._asked[robot_id] = now  # in the order of time, so that the silent ones stand first

    def remaining_s(self, waiting: int, rows: int, since: float, now: float) -> float:
        """Seconds until the batch should start; 0: now.

        `waiting` robots wait, the first `since` then; a batch holds `rows`. There is nobody to wait for when every
        active robot waits already, and no reason to when the batch is full or the time was spent while the device was
        busy.
        """
        for robot_id in list(self._asked):
            if now - self._asked[robot_id] <= ACTIVE_S:
                break
            del self._asked[robot_id]
        if waiting >= min(rows, len(self._asked)):
            return 0.0
        return max(0.0, since + self._wait_s - now)
