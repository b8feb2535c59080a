"""Decides when to request the next chunk: a state machine without server and ROS.

In lock-step the policy sees the state after the last action of its previous chunk, as in training. An arm that plays by
time is asked about earlier, by what an answer has been taking, so that the next chunk is there when this one ends; and
about what comes in from then on: an image that lay there for most of its period would only make the answer older.
Times are nanoseconds; `stamp_ns` is on the clock of message stamps, `now_ns` monotonic.
"""

from __future__ import annotations

import math
from typing import Literal

from pirl_contract.schema import ActionChunk

Phase = Literal["idle", "observing", "inferring", "playing"]

_RETRY_NS = 500_000_000
"""pause after a failed inference"""
_LOST_NS = 1_000_000_000
"""grace after which a chunk whose end was not reported counts as lost"""
_MARGIN = 1.5
"""answers that take this much longer than lately still come in time"""
_MARGIN_STEPS = 2
"""periods between an observation and its question, and between an answer and its first command"""


class InferenceScheduler:
    """idle -> observing -> inferring -> playing -> observing ... -> idle."""

    def __init__(self, ahead: bool = False) -> None:
        """`ahead`: ask before the chunk is played out."""
        self.phase: Phase = "idle"
        self._ahead = ahead
        self._chunk: ActionChunk | None = None
        self._last = self._driven = 0
        self._asked_ns = 0
        self._wanted_ns: int | None = None
        self._answer_ns = 0.0
        self._not_before_stamp_ns = 0
        self._not_before_ns = 0
        self._give_up_ns = 0

    def begin(self) -> None:
        """An episode starts: the next observation is asked about."""
        self.phase, self._chunk = "observing", None
        self._not_before_stamp_ns = self._not_before_ns = 0
        self._wanted_ns = None

    def end(self) -> None:
        """The episode is over: nothing is asked."""
        self.phase, self._chunk = "idle", None

    def wants(self, stamp_ns: int, now_ns: int, received_ns: int | None = None) -> bool:
        """Whether to ask now about an observation with this stamp, the first message of which came at `received_ns`."""
        if self.phase == "playing" and now_ns > self._give_up_ns:
            self.phase, self._wanted_ns = "observing", None
        fresh = not self._ahead or self._wanted_ns is None or received_ns is None or received_ns >= self._wanted_ns
        due = stamp_ns >= self._not_before_stamp_ns and now_ns >= self._not_before_ns
        return self.phase == "observing" and fresh and due

    def asked(self, now_ns: int = 0) -> None:
        """An inference is under way."""
        assert self.phase == "observing"
        self.phase, self._asked_ns, self._driven = "inferring", now_ns, 0

    def received(self, chunk: ActionChunk, now_ns: int) -> None:
        """A chunk came: wait until the arm has played it."""
        self.phase, self._chunk = "playing", chunk
        self._last = min(chunk.execute_horizon, len(chunk.actions)) - 1
        if self._ahead:
            # The slowest lately, forgotten by a tenth per answer: a first one that had to warm up is not for ever.
            since_ns = self._asked_ns if self._wanted_ns is None else self._wanted_ns
            self._answer_ns = max(now_ns - since_ns, 0.9 * self._answer_ns)
            steps = math.ceil(_MARGIN * self._answer_ns / 1e9 / chunk.dt_s) + _MARGIN_STEPS
            self._last = max(0, self._last - steps)
        self._give_up_ns = now_ns + int(2 * chunk.execute_horizon * chunk.dt_s * 1e9) + _LOST_NS

    def failed(self, now_ns: int) -> None:
        """No chunk came: ask again after a pause, about a new observation."""
        if self.phase == "inferring":
            self.phase, self._not_before_ns, self._wanted_ns = "observing", now_ns + _RETRY_NS, None

    def played(self, chunk_id: str, index: int, stamp_ns: int, dropped: bool = False, now_ns: int = 0) -> None:
        """The arm reports an action; after the one that is to be asked at, observations from then on are wanted.

        `dropped`: the arm rejects the rest of the chunk, so this was the last one.
        """
        chunk = self._chunk
        if self.phase != "playing" or chunk is None or chunk.chunk_id != chunk_id:
            return
        if dropped or index >= self._last:
            self.phase, self._not_before_stamp_ns, self._wanted_ns = "observing", stamp_ns, now_ns

    def driven(self, stamp_ns: int, now_ns: int = 0) -> None:
        """The arm reports a step that a human drove: no chunk is played, so steps are counted from the last request."""
        self._driven += 1
        if self.phase == "playing" and self._chunk is not None and self._driven >= self._chunk.execute_horizon:
            self.phase, self._not_before_stamp_ns, self._wanted_ns = "observing", stamp_ns, now_ns
