"""The queue with its bound, its window and its counts: who is let in, who is sent away, when a batch is due.

No lock of its own, and it tells nobody: it returns who is refused and why, for its caller to tell outside of a lock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pirl_server.serving.batch import Batch, Request
from pirl_server.serving.engine_stats import Tally
from pirl_server.serving.errors import BusyError, ExpiredError, SupersededError
from pirl_server.serving.waiting import Waiting
from pirl_server.serving.window import Window

Refused = list[tuple[Request, Exception]]


class Line:
    """`size` robots may wait; a batch holds up to `rows`. Times are `time.monotonic()`."""

    def __init__(self, size: int, rows: int, window_s: float) -> None:
        self.size, self._rows = size, rows
        self.waiting, self.tally = Waiting(), Tally()
        self._window = Window(window_s)

    def admit(self, request: Request) -> Refused:
        """Give the request its robot's place; return who is refused for it. Raises BusyError when there is no room."""
        refused: Refused = []
        if len(self.waiting) >= self.size and request.robot_id not in self.waiting:
            refused = self._unwanted(request.submitted)
            if not refused:
                self.tally.counts["refused"] += 1
                raise self._busy()
        older = self.waiting.put(request)
        if older is not None:
            self.tally.counts["superseded"] += 1
            refused.append((older, SupersededError(f"robot '{request.robot_id}' sent a newer request")))
        self._window.saw(request.robot_id, request.submitted)
        return refused

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next batch is due; None: nobody waits."""
        if not self.waiting:
            return None
        return self._window.remaining_s(len(self.waiting), self._rows, self.waiting.since, now)

    def answered(self, batch: Batch, now: float) -> None:
        """Count a batch that is done."""
        self.tally.add(batch)
        if not batch.idle:
            self._window.ended((request.robot_id for request in batch.requests), now)

    def take(self, current: str, now: float) -> tuple[list[Request], Refused]:
        """Return the rows of the next batch, all of one version, and who is refused instead."""
        refused = self._unwanted(now)
        return self.waiting.take(self._rows, current), refused

    def _unwanted(self, now: float) -> Refused:
        refused: Refused = []
        for request in self.waiting.drop(lambda each: each.given_up or each.expired(now)):
            late_ms = 1000 * (now - request.deadline) if request.deadline is not None else 0.0
            self.tally.counts["given_up" if request.given_up else "expired"] += 1
            refused.append((request, ExpiredError(f"waited until {late_ms:.0f} ms after its deadline")))
        return refused

    def _busy(self) -> BusyError:
        batches = 1 + math.ceil(len(self.waiting) / self._rows)  # the one on the device comes first
        hint_s = batches * self.tally.mean_batch_ms / 1000
        return BusyError(f"{self.size} requests are waiting already: try again in {hint_s:.2f} s", hint_s)


def tell(refused: Sequence[tuple[Request, Exception]]) -> None:
    """Answer the refused. Never under a lock: callbacks of their futures run here."""
    for request, reason in refused:
        request.refuse(reason)
