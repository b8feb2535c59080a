"""How long a batch waits for more rows: not at all for a robot that is alone, a few milliseconds among several."""

from __future__ import annotations

from collections.abc import Iterable

ACTIVE_S = 1.0
"""a robot that asked within this time may ask again any moment"""
PROMPT_S = 0.01
"""a robot that asked this soon after its last answer asks as soon as it is answered, and is waited for so long"""


class Window:
    """Knows which robots are active and which of them ask at once. Times are `time.monotonic()`; not thread-safe."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._asked: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._prompt: set[str] = set()
        self._expected: set[str] = set()
        self._ended = 0.0

    def saw(self, robot_id: str, now: float) -> None:
        """Note that a robot asked."""
        self._asked.pop(robot_id, None)
        self._asked[robot_id] = now  # in the order of time, so that the silent ones stand first
        self._expected.discard(robot_id)
        answered = self._answered.pop(robot_id, None)
        if answered is not None:
            (self._prompt.add if now - answered <= PROMPT_S else self._prompt.discard)(robot_id)

    def ended(self, robot_ids: Iterable[str], now: float) -> None:
        """Note that these robots were answered together.

        Those that ask anew at once would miss a batch that starts now, and then take turns with the others: two
        batches per answer. Robots that ask by their own clock are not waited for: it would only make them wait.
        """
        answered = [robot_id for robot_id in robot_ids if robot_id in self._asked]
        self._answered.update(dict.fromkeys(answered, now))
        self._expected, self._ended = self._prompt.intersection(answered), now

    def remaining_s(self, waiting: int, rows: int, since: float, now: float) -> float:
        """Seconds until the batch should start; 0: now.

        `waiting` robots wait, the first `since` then; a batch holds `rows`. There is nobody to wait for when every
        active robot waits already, and no reason to when the batch is full.
        """
        self._forget(now)
        if waiting >= min(rows, len(self._asked)):
            return 0.0
        until = since + self._wait_s
        if self._expected and self._wait_s:
            until = max(until, self._ended + PROMPT_S)
        return max(0.0, until - now)

    def _forget(self, now: float) -> None:
        for robot_id in list(self._asked):
            if now - self._asked[robot_id] <= ACTIVE_S:
                break
            del self._asked[robot_id]
            self._answered.pop(robot_id, None)
            self._prompt.discard(robot_id)
            self._expected.discard(robot_id)
