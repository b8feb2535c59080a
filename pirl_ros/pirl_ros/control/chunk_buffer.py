"""Holds the chunk being played. Late and repeated ones are dropped; by time, overdue actions are skipped."""

from __future__ import annotations

from collections import deque
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Vector
from pirl_ros.sensing.state_history import Measured, StateHistory

FADE_STEPS = 4
"""periods over which a chunk replaces one that it does not continue"""


class Blending(Protocol):
    """How actions of two chunks compare; `ActionSpace` is one. J = joints, H = actions, D = entries of an action."""

    def rebased(self, actions_HD: Vector, old: NDArray[np.float64], new: NDArray[np.float64]) -> Vector:
        """Return actions [H, D] that answer an observation with joints `old` [J] as they would one with `new` [J]."""

    def mixed(self, old_HD: Vector, new_HD: Vector, share_H: NDArray[np.float32]) -> Vector:
        """Return `share_H` of the new actions and the rest of the old ones, as [H, D]."""

    def continues(self, action: Vector, played: Vector) -> bool:
        """Return whether an action [D] is the one `played` [D] last."""


class Absolute:
    """`Blending` of actions that count from nothing. J = joints, H = actions, D = entries of an action."""

    def rebased(self, actions_HD: Vector, old: NDArray[np.float64], new: NDArray[np.float64]) -> Vector:
        """Return the actions [H, D] as they are, for any joints `old` and `new` [J] both."""
        return actions_HD

    def mixed(self, old_HD: Vector, new_HD: Vector, share_H: NDArray[np.float32]) -> Vector:
        """Return the weighted mean of each entry, as [H, D]."""
        mixed: Vector = share_H[:, None] * new_HD + (1 - share_H[:, None]) * old_HD
        return mixed

    def continues(self, action: Vector, played: Vector) -> bool:
        """Return whether both [D] are the same, bit for bit."""
        return np.array_equal(action, played)


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
class Play:
    """Play `action`, number `index` of `chunk`, in this period."""

    chunk: PlayableChunk
    index: int
    action: Vector
    """[D]"""
    observed: Measured | None
    """the arm at the chunk's observation; None: no known state is near its stamp"""
    entered: bool
    """the first one played of its chunk"""
    blended: bool
    """mixed with what the chunk before it would have played"""
    drained: bool
    """beyond execute_horizon: played because no newer chunk came"""


@dataclass(frozen=True)
class Missing:
    """There is no action for this period."""

    overdue_ns: int
    """how long a newer chunk has been due; 0 before the first chunk of an episode was played out"""


@dataclass(frozen=True)
class Stale:
    """The chunk was dropped: its observation is not newer than `flush` demands."""


class ChunkBuffer:
    """Holds one chunk and plays it in order, by index or by time.

    By index (`link_loss_ns` None, a simulator in lock-step): action i follows action i-1, whenever that was, up to
    execute_horizon. By time: as many actions are skipped at the start of a chunk as were played since its observation:
    those are overdue; time in which the arm stood makes nothing overdue. A missed period is skipped too.
    After execute_horizon the rest is played for at most `link_loss_ns`. Times are monotonic.

    By time, a chunk that does not continue the one being played is faded in over `FADE_STEPS` actions. One that does
    agrees with the action played last. What is left of the chunk before counts from another observation: it is counted
    from that of the new one first.
    """

    def __init__(self, period_ns: int, link_loss_ns: int | None = None, space: Blending | None = None) -> None:
        """`space`: what the entries of an action mean; None: each of them counts from nothing."""
        self._period_ns, self._link_loss_ns = period_ns, link_loss_ns
        self._space = space or Absolute()
        self._chunk: PlayableChunk | None = None
        self._next = self._entry = 0
        self._entered_ns: int | None = None
        self.episode_id = ""
        """The episode whose chunks are accepted; empty when none is running. Changed by the methods only."""
        self._sequence = self._fresh_from_ns = -1
        self._observed: Measured | None = None
        self._ended: deque[str] = deque(maxlen=16)
        self._played_ns: deque[int] = deque(maxlen=512)
        self._due_ns: int | None = None
        self._left: tuple[Vector, int, Measured | None] | None = None
        self._faded = 0

    @property
    def depth(self) -> int:
        """Actions not yet played, up to execute_horizon."""
        return 0 if self._chunk is None else max(0, self._chunk.execute_horizon - self._next)

    def copy(self) -> ChunkBuffer:
        """Return an independent copy, for lookahead."""
        other = copy(self)
        other._played_ns, other._ended = self._played_ns.copy(), self._ended.copy()
        return other

    def begin(self, episode_id: str) -> None:
        """Accept chunks of this episode; drops what is left of another. Calling it twice changes nothing."""
        if episode_id != self.episode_id:
            self.drop()
            self._sequence, self.episode_id, self._due_ns = -1, episode_id, None

    def end(self, episode_id: str) -> None:
        """Drop the rest; later chunks of this episode are rejected."""
        self._ended.append(episode_id)
        if episode_id == self.episode_id:
            self.drop()
            self.episode_id, self._due_ns = "", None

    def accept(self, chunk: PlayableChunk) -> str:
        """Replace the present chunk; one of another episode begins it. Returns '' or why it was dropped."""
        if chunk.episode_id in self._ended:
            return f"chunk {chunk.chunk_id} belongs to an ended episode"
        timed, off_ns = self._link_loss_ns is not None, abs(chunk.dt_s * 1e9 - self._period_ns)
        if timed and chunk.dt_s and off_ns > 0.01 * self._period_ns:
            period_s = self._period_ns / 1e9
            return f"chunk {chunk.chunk_id} has a step of {chunk.dt_s:g} s, this arm's control period is {period_s:g} s"
        self.begin(chunk.episode_id)
        if chunk.sequence <= self._sequence:
            return f"chunk {chunk.chunk_id} is late: sequence {chunk.sequence}, seen {self._sequence}"
        if timed and self._chunk is not None and self._entered_ns is not None:
            self._left = self._chunk.actions, self._next, self._observed
        self._chunk, self._sequence, self._next, self._entered_ns = chunk, chunk.sequence, 0, None
        return ""

    def drop(self) -> None:
        """Drop the rest of the present chunk; the episode continues."""
        self._chunk = self._left = None

    def flush(self, observed_ns: int) -> None:
        """Drop the present chunk; from now on play only one whose observation is newer than `observed_ns`.

        None counts as missing until one was played.
        """
        self.drop()
        self._due_ns, self._fresh_from_ns = None, observed_ns

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

    def next(self, now_ns: int, states: StateHistory) -> Play | Missing | Stale:
        """Return the action of this period and advance.

        `states` give when the observation of a new chunk was made, and what the arm's joints were then.
        """
        chunk = self._chunk
        if chunk is None:
            return self._missing(now_ns)
        entering = self._entered_ns is None
        if self._entered_ns is None:
            self._observed = states.at(chunk.stamp_ns, now_ns)
            if self._observed is not None and self._observed.received_ns <= self._fresh_from_ns:
                self.drop()
                return Stale()
            self._entered_ns, self._due_ns = now_ns, None
            self._entry = self._next = self._overdue(self._observed)
            chunk = self._chunk = self._fade(chunk, now_ns)
        if self._link_loss_ns is not None:
            missed = round((now_ns - self._entered_ns) / self._period_ns)
            self._next = max(self._next, self._entry + missed)
        limit = chunk.execute_horizon if self._link_loss_ns is None else self._limit(chunk, now_ns)
        if self._next >= min(limit, len(chunk.actions)):
            self._chunk = None
            return self._missing(now_ns)
        index, self._next = self._next, self._next + 1
        self._played_ns.append(now_ns)
        if self._next >= chunk.execute_horizon:
            self._complete(chunk, now_ns)
        return Play(
            chunk,
            index,
            chunk.actions[index],
            self._observed,
            entered=entering,
            blended=index < self._entry + self._faded,
            drained=index >= chunk.execute_horizon,
        )

    def _missing(self, now_ns: int) -> Missing:
        return Missing(0 if self._due_ns is None else max(0, now_ns - self._due_ns))

    def _overdue(self, observed: Measured | None) -> int:
        if self._link_loss_ns is None or observed is None:
            return 0
        return sum(played >= observed.received_ns for played in self._played_ns)

    def _fade(self, chunk: PlayableChunk, now_ns: int) -> PlayableChunk:
        """Blend from what is left of the chunk before, unless this one continues it."""
        left, self._left, self._faded = self._left, None, 0
        if left is None or left[2] is None or self._observed is None:
            return chunk
        actions, following, entry = *left[:2], self._entry
        actions = self._space.rebased(actions, left[2].joints, self._observed.joints)
        if 0 < entry <= len(chunk.actions) and self._space.continues(chunk.actions[entry - 1], actions[following - 1]):
            return chunk
        following += max(0, round((now_ns - self._played_ns[-1]) / self._period_ns) - 1)
        self._faded = max(0, min(FADE_STEPS, len(actions) - following, len(chunk.actions) - entry))
        new, old = slice(entry, entry + self._faded), slice(following, following + self._faded)
        if not np.isfinite(actions[old]).all() or not np.isfinite(chunk.actions[new]).all():
            self._faded = 0
            return chunk
        share = np.arange(1, self._faded + 1, dtype=np.float32) / np.float32(FADE_STEPS + 1)
        faded = chunk.actions.copy()
        faded[new] = self._space.mixed(actions[old], chunk.actions[new], share)
        return replace(chunk, actions=faded)

    def _limit(self, chunk: PlayableChunk, now_ns: int) -> int:
        assert self._link_loss_ns is not None
        drained = self._missing(now_ns).overdue_ns <= self._link_loss_ns
        return len(chunk.actions) if drained else chunk.execute_horizon

    def _complete(self, chunk: PlayableChunk, now_ns: int) -> None:
        """Played to its execute_horizon: from the next period on a newer chunk is missing."""
        if self._due_ns is None:
            self._due_ns = now_ns + self._period_ns
        if self._link_loss_ns is None or self._next >= len(chunk.actions):
            self._chunk = None
