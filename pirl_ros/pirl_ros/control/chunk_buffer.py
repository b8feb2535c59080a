"""The chunk being played. Late and repeated chunks are dropped; by time, overdue actions are skipped."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from pirl_contract.schema import Vector

FADE_STEPS = 4
"""periods over which a chunk replaces one that it does not continue"""


@dataclass(frozen=True)
class PlayableChunk:
    """A chunk as the arm receives it."""

    episode_id: str
    sequence: int
    chunk_id: str
    actions: Vector
    """[H, D]"""
    execute_horizon: int
    stamp_ns: int
    """capture time of the observation it answers, clock of the robot's message stamps"""
    dt_s: float = 0.0
    """time between two actions; 0: one control period"""


@dataclass(frozen=True)
class PlannedStep:
    """Action `index` of `chunk`, to be played now."""

    chunk: PlayableChunk
    index: int
    entered: bool = False
    """the first one played of its chunk"""
    blended: bool = False
    """mixed with what the chunk before it would have played"""

    @property
    def action(self) -> Vector:
        """[D]"""
        action: Vector = self.chunk.actions[self.index]
        return action

    @property
    def drained(self) -> bool:
        """Whether a newer chunk should be there by now: played on because none is."""
        return self.index >= self.chunk.execute_horizon


class ChunkBuffer:
    """Holds one chunk and plays it in order, by index or by time.

    By index (`link_loss_ns` None, a simulator in lock-step): action i follows action i-1, whenever that was, up to
    execute_horizon. By time: a chunk is entered as many actions further on as were played since its observation: those
    are overdue; time in which the arm stood makes nothing overdue. A period that was missed is passed over too.
    After execute_horizon the rest is played for at most `link_loss_ns`. Times are monotonic.

    By time, a chunk that does not continue the one being played is faded in over `FADE_STEPS` actions. One that does
    agrees with the action played last, bit for bit.
    """

    def __init__(self, period_ns: int, link_loss_ns: int | None = None) -> None:
        self._period_ns, self._link_loss_ns = period_ns, link_loss_ns
        self._chunk: PlayableChunk | None = None
        self._next = self._entry = 0
        self._entered_ns: int | None = None
        self._episode_id = ""
        self._sequence = -1
        self._ended: deque[str] = deque(maxlen=16)
        self._played_ns: deque[int] = deque(maxlen=512)
        self._due_ns: int | None = None
        self._left: tuple[Vector, int] | None = None
        self._faded = 0

    @property
    def episode_id(self) -> str:
        """The episode whose chunks are accepted; empty when none is running."""
        return self._episode_id

    @property
    def waiting(self) -> PlayableChunk | None:
        """The chunk that has come and of which nothing was played yet."""
        return self._chunk if self._entered_ns is None else None

    @property
    def under_way(self) -> bool:
        """Whether part of a chunk was played and more of it is to come."""
        return self._chunk is not None and self._entered_ns is not None

    @property
    def depth(self) -> int:
        """Actions not yet played, up to execute_horizon."""
        return 0 if self._chunk is None else max(0, self._chunk.execute_horizon - self._next)

    def begin(self, episode_id: str) -> None:
        """Accept chunks of this episode; drops what is left of another. Calling it twice changes nothing."""
        if episode_id != self._episode_id:
            self.drop()
            self._sequence, self._episode_id, self._due_ns = -1, episode_id, None

    def end(self, episode_id: str) -> None:
        """Drop the rest; later chunks of this episode are rejected."""
        self._ended.append(episode_id)
        if episode_id == self._episode_id:
            self.drop()
            self._episode_id, self._due_ns = "", None

    def offer(self, chunk: PlayableChunk) -> str:
        """Take a chunk in place of the present one. Returns '' or why it was dropped."""
        if chunk.episode_id in self._ended:
            return f"chunk {chunk.chunk_id} belongs to an ended episode"
        timed, off_ns = self._link_loss_ns is not None, abs(chunk.dt_s * 1e9 - self._period_ns)
        if timed and chunk.dt_s and off_ns > 0.01 * self._period_ns:
            period_s = self._period_ns / 1e9
            return f"chunk {chunk.chunk_id} has a step of {chunk.dt_s:g} s, this arm's control period is {period_s:g} s"
        self.begin(chunk.episode_id)
        if chunk.sequence <= self._sequence:
            return f"chunk {chunk.chunk_id} is late: sequence {chunk.sequence}, seen {self._sequence}"
        if self.under_way and self._link_loss_ns is not None:
            assert self._chunk is not None
            self._left = self._chunk.actions, self._next
        self._chunk, self._sequence, self._next, self._entered_ns = chunk, chunk.sequence, 0, None
        return ""

    def drop(self) -> None:
        """Drop the rest of the present chunk; the episode continues."""
        self._chunk = self._left = None

    def wait(self) -> None:
        """Drop the present chunk and count none as missing until another one was played."""
        self.drop()
        self._due_ns = None

    def missing_ns(self, now_ns: int) -> int:
        """For how long a newer chunk should have been there; 0 before the first chunk of an episode was played out."""
        return 0 if self._due_ns is None else max(0, now_ns - self._due_ns)

    def remaining(self) -> Vector | None:
        """Return the actions [n, D] that are played if no newer chunk comes: after execute_horizon for `link_loss_ns`.

        No more than that may be planned ahead: a controller whose commander has died plays all it was given.
        """
        if self._chunk is None:
            return None
        end = self._chunk.execute_horizon
        if self._link_loss_ns is not None:
            end += self._link_loss_ns // self._period_ns + 1
        return self._chunk.actions[self._next : max(end, self._next)]

    def next(self, now_ns: int = 0, captured_ns: int | None = None) -> PlannedStep | None:
        """Return the next action and move on; None when there is nothing to play.

        `captured_ns`: when the waiting chunk's observation was made, None when that is not known.
        """
        chunk = self._chunk
        if chunk is None:
            return None
        entering = self._entered_ns is None
        if self._entered_ns is None:
            self._entered_ns, self._due_ns = now_ns, None
            self._entry = self._next = self._overdue(captured_ns)
            chunk = self._chunk = self._fade(chunk, now_ns)
        if self._link_loss_ns is not None:
            missed = round((now_ns - self._entered_ns) / self._period_ns)
            self._next = max(self._next, self._entry + missed)
        limit = chunk.execute_horizon if self._link_loss_ns is None else self._limit(chunk, now_ns)
        if self._next >= min(limit, len(chunk.actions)):
            self._chunk = None
            return None
        step = PlannedStep(chunk, self._next, entering, self._next < self._entry + self._faded)
        self._next += 1
        self._played_ns.append(now_ns)
        if self._next >= chunk.execute_horizon:
            self._out(chunk, now_ns)
        return step

    def _overdue(self, captured_ns: int | None) -> int:
        if self._link_loss_ns is None or captured_ns is None:
            return 0
        return sum(played >= captured_ns for played in self._played_ns)

    def _fade(self, chunk: PlayableChunk, now_ns: int) -> PlayableChunk:
        """Move over from the actions that are left of the chunk before, when it tears off from them."""
        left, self._left, self._faded = self._left, None, 0
        if left is None:
            return chunk
        actions, following = left
        entry = self._entry
        if 0 < entry <= len(chunk.actions) and np.array_equal(chunk.actions[entry - 1], actions[following - 1]):
            return chunk
        following += max(0, round((now_ns - self._played_ns[-1]) / self._period_ns) - 1)
        self._faded = max(0, min(FADE_STEPS, len(actions) - following, len(chunk.actions) - entry))
        new, old = slice(entry, entry + self._faded), slice(following, following + self._faded)
        if not np.isfinite(actions[old]).all():
            self._faded = 0
            return chunk
        share = (np.arange(1, self._faded + 1, dtype=np.float32) / (FADE_STEPS + 1))[:, None]
        faded = chunk.actions.copy()
        faded[new] = share * chunk.actions[new] + (1 - share) * actions[old]
        return replace(chunk, actions=faded)

    def _limit(self, chunk: PlayableChunk, now_ns: int) -> int:
        assert self._link_loss_ns is not None
        drained = self.missing_ns(now_ns) <= self._link_loss_ns
        return len(chunk.actions) if drained else chunk.execute_horizon

    def _out(self, chunk: PlayableChunk, now_ns: int) -> None:
        """Played to its execute_horizon: from the next period on a newer chunk is missing."""
        if self._due_ns is None:
            self._due_ns = now_ns + self._period_ns
        if self._link_loss_ns is None or self._next >= len(chunk.actions):
            self._chunk = None
