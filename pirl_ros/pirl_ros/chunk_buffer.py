"""The chunk being played. Each is played from its start to its execute_horizon; late and repeated ones are dropped."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pirl_contract.schema import Vector


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


@dataclass(frozen=True)
class PlannedStep:
    """Action `index` of `chunk`, to be played now."""

    chunk: PlayableChunk
    index: int

    @property
    def action(self) -> Vector:
        """[D]"""
        action: Vector = self.chunk.actions[self.index]
        return action


class ChunkBuffer:
    """Holds one chunk and plays it by index: action i follows action i-1, whenever that was.

    A chunk is entered at its first action: the policy is asked only after the last chunk was played and the arm holds
    meanwhile, so no action is overdue when a chunk arrives. `offer` is where a late chunk would be entered further on.
    """

    def __init__(self) -> None:
        self._chunk: PlayableChunk | None = None
        self._next = 0
        self._episode_id = ""
        self._sequence = -1
        self._ended: deque[str] = deque(maxlen=16)

    @property
    def episode_id(self) -> str:
        """The episode whose chunks are accepted; empty when none is running."""
        return self._episode_id

    def begin(self, episode_id: str) -> None:
        """Accept chunks of this episode; drops what is left of another. Calling it twice changes nothing."""
        if episode_id != self._episode_id:
            self._chunk, self._sequence, self._episode_id = None, -1, episode_id

    def end(self, episode_id: str) -> None:
        """Drop the rest; later chunks of this episode are refused."""
        self._ended.append(episode_id)
        if episode_id == self._episode_id:
            self._chunk, self._episode_id = None, ""

    def offer(self, chunk: PlayableChunk) -> str:
        """Take a chunk in place of the present one. Returns '' or why it was dropped."""
        if chunk.episode_id in self._ended:
            return f"chunk {chunk.chunk_id} belongs to an ended episode"
        self.begin(chunk.episode_id)
        if chunk.sequence <= self._sequence:
            return f"chunk {chunk.chunk_id} is late: sequence {chunk.sequence}, seen {self._sequence}"
        self._chunk, self._sequence, self._next = chunk, chunk.sequence, 0
        return ""

    def drop(self) -> None:
        """Drop the rest of the present chunk; the episode goes on."""
        self._chunk = None

    def next(self) -> PlannedStep | None:
        """Return the next action and move on; None when there is nothing to play."""
        chunk = self._chunk
        if chunk is None:
            return None
        step = PlannedStep(chunk, self._next)
        self._next += 1
        if self._next >= min(chunk.execute_horizon, len(chunk.actions)):
            self._chunk = None
        return step
