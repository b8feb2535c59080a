"""Memory limit of open episodes: over the limit, calls wait for the disk or are rejected.

Every robot has a share. What an episode holds beyond half of it is written to files by a thread of its own, so a robot
is rejected only when the disk does not take the calls, and never for what another robot holds.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pirl_server.serving.episode_builder import MAX_STEPS, EpisodeBuilder
from pirl_server.serving.errors import BusyError

_LOG = logging.getLogger(__name__)
RETRY_S = 1.0
"""how often the disk is tried again after it rejected"""


@dataclass(frozen=True)
class Limits:
    """Of what is being recorded."""

    open: int = 64
    """episodes"""
    open_per_robot: int = 8
    memory: int = 2**30
    """bytes, of all open episodes"""
    memory_per_robot: int = 2**28
    steps: int = MAX_STEPS
    """of one episode"""
    free: int = 2**28
    """bytes that stay free on the disk, so that episodes can still be published"""

    @classmethod
    def of_memory(cls, memory: int) -> Limits:
        """The usual ones for this much memory: a quarter of it for each robot. Raises ValueError below 1 MiB."""
        if memory < 2**20:
            raise ValueError(f"{memory} bytes of memory for open episodes: give at least 1 MiB")
        return cls(memory=memory, memory_per_robot=memory // 4)


class Room:
    """Writes surplus calls to the disk, and says whether a robot may add more. Any thread.

    `open_episodes()` are looked at; `free_bytes()` is how much room the disk has.
    """

    def __init__(
        self, limits: Limits, open_episodes: Callable[[], Sequence[EpisodeBuilder]], free_bytes: Callable[[], int]
    ) -> None:
        self.limits, self._open, self._free_bytes = limits, open_episodes, free_bytes
        self._fault = ""
        self._closing = False
        self._wake = threading.Event()
        self._writer = threading.Thread(target=self._write, name="spill", daemon=True)
        self._writer.start()

    def check_start(self, robot_id: str) -> None:
        """Raise BusyError when the robot, or all together, may not open another episode."""
        episodes, limits = self._open(), self.limits
        if len(episodes) >= limits.open:
            raise BusyError(f"{limits.open} episodes are already open: end one of them")
        if sum(each.start.robot_id == robot_id for each in episodes) >= limits.open_per_robot:
            raise BusyError(f"robot '{robot_id}' has {limits.open_per_robot} open episodes already: end one of them")
        self.check_call(robot_id)

    def check_call(self, robot_id: str) -> None:
        """Raise BusyError when the robot's episodes hold more than its share. Never waits."""
        used = Counter[str]()
        for episode in self._open():
            used[episode.start.robot_id] += episode.nbytes
        share = self.limits.memory_per_robot
        if used.total() > self.limits.memory:
            share = min(share, self.limits.memory // len(used))
        if used[robot_id] > share:
            self._wake.set()
            why = self._fault or "the disk writes more slowly than data arrives"
            raise BusyError(
                f"open episodes of robot '{robot_id}' hold {used[robot_id] >> 10} KiB in memory, its share is"
                f" {share >> 10} KiB ({why}): end the episode, or request without an episode id"
            )

    def grew(self, episode: EpisodeBuilder) -> None:
        """Say that an episode has more calls. Never waits."""
        if episode.calls.nbytes > self._kept(episode, self._open()):
            self._wake.set()

    def close(self) -> None:
        """Write no more."""
        self._closing = True
        self._wake.set()
        self._writer.join()

    def _kept(self, episode: EpisodeBuilder, episodes: Sequence[EpisodeBuilder]) -> int:
        """How much of an episode's calls stays in memory."""
        own = sum(each.start.robot_id == episode.start.robot_id for each in episodes)
        return min(self.limits.memory_per_robot // max(1, own), self.limits.memory // max(1, len(episodes))) // 2

    def _write(self) -> None:
        while not self._closing:
            self._wake.wait(RETRY_S if self._fault else None)
            self._wake.clear()
            self._spill()

    def _spill(self) -> None:
        episodes, fault = self._open(), ""
        for episode in episodes:
            kept = self._kept(episode, episodes)
            if self._closing or episode.calls.nbytes <= kept:
                continue
            try:
                if (free := self._free_bytes()) < self.limits.free:
                    fault = f"{free >> 20} MiB of disk space left, {self.limits.free >> 20} MiB stay free"
                    continue
                episode.calls.spill(kept)
            except OSError as error:
                fault = f"writing to disk failed: {error.strerror or error}"
        if fault and fault != self._fault:
            _LOG.error("calls of open episodes are kept in memory: %s", fault)
        self._fault = fault
