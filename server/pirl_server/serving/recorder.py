"""Holds the open episodes of all robots, within limits; publishes each at its end, or when its robot is gone."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from pirl_contract import ActionChunk, Observation, StepOutcome
from pirl_contract.names import check_robot_id
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.served_policy import PolicySample
from pirl_server.serving.alteration_counts import AlterationCounts
from pirl_server.serving.camera_codecs import NOT_ENCODED, Encoded
from pirl_server.serving.episode_builder import MAX_STEPS, VANISHED, EpisodeBuilder, EpisodeEnd, EpisodeStart
from pirl_server.serving.errors import BusyError

_LOG = logging.getLogger(__name__)
MAX_RECEIPTS = 4096
"""ends that are remembered: one that is asked for again is answered as the first time"""
NO_ROOM_RETRY_S = 30.0
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


@dataclass(frozen=True)
class Receipt:
    """Where an episode went: path of its Zarr group relative to the store, empty when nothing was published."""

    path: str
    steps: int


@dataclass(frozen=True)
class _Closing:
    """An episode whose end is being written."""

    episode: EpisodeBuilder
    done: Future[Receipt] = field(default_factory=Future)


class Recorder:
    """The one writer of a store. Every method may be called from any thread.

    An episode without a policy call or without an executed step is dropped: it holds nothing to learn from. Ending and
    dropping always work, whatever the memory holds; only starting and adding calls is limited.
    """

    def __init__(self, store: EpisodeStore, limits: Limits = Limits(), idle_limit_s: float = 60.0) -> None:
        self._store, self._limits, self._idle_limit_s = store, limits, idle_limit_s
        self._open: dict[str, EpisodeBuilder] = {}
        self._ending: dict[str, _Closing] = {}
        self._receipts: OrderedDict[str, tuple[str, Receipt]] = OrderedDict()
        self._lock = threading.RLock()
        self.ended = dict.fromkeys(("published", "dropped", "failed"), 0)
        """episodes that ended, and attempts that failed and may succeed later"""
        self.published_bytes = 0
        """of the calls of those that were published"""
        self.alterations = AlterationCounts()
        """of all executed steps, by policy version"""
        self._closing = threading.Event()
        store.sweep()
        self._room = Room(limits, self._episodes, store.free_bytes)
        self._janitor = threading.Thread(target=self._watch, name="episodes", daemon=True)
        self._janitor.start()

    @property
    def open_episodes(self) -> int:
        """How many are being recorded. Never waits for the disk."""
        return len(self._open) + len(self._ending)

    def nbytes(self) -> tuple[int, int]:
        """How much of them is in memory, and how much in files of the staging area. Never waits for the disk."""
        episodes = self._episodes()
        return sum(each.nbytes for each in episodes), sum(each.calls.nbytes_on_disk for each in episodes)

    def is_open(self, episode_id: str) -> bool:
        """Whether an episode is being recorded. Never waits for the disk."""
        return episode_id in self._open or episode_id in self._ending

    def robot_of(self, episode_id: str) -> str | None:
        """Whose episode this is, None for an unknown one; those that ended a while ago are the store's to know."""
        with self._lock:
            if episode_id in self._receipts:
                return self._receipts[episode_id][0]
            closing = self._ending.get(episode_id)
            episode = closing.episode if closing else self._open.get(episode_id)
            return episode.start.robot_id if episode else None

    def start(self, start: EpisodeStart) -> EpisodeBuilder:
        """Begin an episode.

        Raises ValueError for a robot id that may not name a folder, BusyError at a limit and without room on the disk.
        """
        check_robot_id(start.robot_id)
        if why := self._store.no_room():
            raise BusyError(f"no episode can be recorded: {why}", NO_ROOM_RETRY_S)
        id_ = uuid.uuid4().hex
        episode = EpisodeBuilder(id_, start, self._store.scratch(id_), self._limits.steps, self.alterations)
        with self._lock:
            self._room.check_start(start.robot_id)
            self._open[id_] = episode
        return episode

    def find(self, episode_id: str) -> EpisodeBuilder:
        """Return an open episode. Raises KeyError when none has this id."""
        with self._lock:
            return self._open[episode_id]

    def take_outcomes(self, episode_id: str, seen: Observation, outcomes: Sequence[StepOutcome]) -> EpisodeBuilder:
        """Add the outcomes that come with a request for a chunk; return its episode, for `add_call`. Never waits.

        Raises KeyError for an unknown id; ValueError for another robot's episode, another instruction than at its
        start and outcomes that do not fit; BusyError when the robot's open episodes hold too much for one more call:
        the outcomes are kept, and the episode can be ended.
        """
        with self._lock:
            episode = self._open[episode_id]
        if seen.robot_id != episode.start.robot_id:
            raise ValueError(f"episode '{episode_id}' belongs to robot '{episode.start.robot_id}'")
        if seen.instruction != episode.start.instruction:
            raise ValueError("the instruction changed within an episode: end it and start a new one")
        full = self._room.full(seen.robot_id)
        episode.add_outcomes(outcomes)
        if full is not None:
            raise full
        return episode

    def add_call(
        self,
        episode: EpisodeBuilder,
        observation: Observation,
        sample: PolicySample,
        chunk: ActionChunk,
        latency_ms: float,
        encoded: Encoded = NOT_ENCODED,
    ) -> None:
        """Remember one answered request. Never waits for the disk."""
        kept = self._room.kept(episode)
        episode.add_call(observation, sample, chunk, latency_ms, encoded)
        if episode.calls.nbytes > kept:
            self._room.wake.set()

    def end(self, episode_id: str, ending: EpisodeEnd | None, outcomes: Sequence[StepOutcome] = ()) -> Receipt:
        """Publish the episode: on the disk when this returns. Asked again, the answer is that of the first time.

        `ending` None: as its robot has announced, or vanished. Outcomes beyond the episode's bound are left out.
        Raises KeyError for an unknown id. Whatever else it raises (ValueError for outcomes or a final observation that
        do not fit, OSError when the disk rejects): nothing is visible, the episode stays open and keeps its ending, and
        ending it again is allowed.
        """
        with self._lock:
            if episode_id in self._receipts:
                return self._receipts[episode_id][1]
            if (other := self._ending.get(episode_id)) is None:
                closing = self._ending[episode_id] = _Closing(self._open.pop(episode_id))
        if other is not None:
            return other.done.result()
        return self._close(closing, ending, outcomes)

    def label(self, episode_id: str, success: bool | None, source: str, note: str) -> bool | None:
        """Label an episode, open or published; return what it was labelled before.

        One that comes while the episode is written is on the disk when this returns, as the episode is when its end is
        answered: no crash in between loses it. Raises KeyError for an unknown id.
        """
        with self._lock:
            closing = self._ending.get(episode_id)
            episode = closing.episode if closing else self._open.get(episode_id)
        if episode is None:
            return self._store.label(episode_id, success, source, note)
        previous = episode.set_label(success, source, note)
        if closing is not None or episode.labels_logged:
            episode.labels_logged = True
            self._store.note_label(episode_id, success, source, note)
        return previous

    def discard(self, episode_id: str) -> Receipt:
        """Drop the episode; one that was ended before stays. Raises KeyError for an unknown id."""
        with self._lock:
            if episode_id in self._receipts:
                return self._receipts[episode_id][1]
            if (other := self._ending.get(episode_id)) is None:
                episode = self._open.pop(episode_id)
                self.ended["dropped"] += 1
                receipt = self._remember(episode, Receipt("", episode.steps))
        if other is not None:
            return other.done.result()
        episode.close()
        return receipt

    def close(self) -> None:
        """Publish what is open as truncated and stop watching. Nothing may be reported after this."""
        self._closing.set()
        self._janitor.join()
        self._close_idle(0.0)
        self._room.close()

    def _close(self, closing: _Closing, ending: EpisodeEnd | None, outcomes: Sequence[StepOutcome]) -> Receipt:
        episode, final = closing.episode, ending.final if ending else None
        try:
            if ending is not None:
                episode.announce(ending)
            episode.add_outcomes(outcomes, cut=True)
            summary = self._store.write(episode.finish(final)) if episode.complete else None
        except Exception as error:
            with self._lock:
                self.ended["failed"] += 1
                episode.reopen()
                del self._ending[episode.id]
                self._open[episode.id] = episode
            closing.done.set_exception(error)
            raise
        receipt = Receipt(summary.path, summary.steps) if summary else Receipt("", episode.steps)
        with self._lock:
            self.ended["published" if summary else "dropped"] += 1
            self.published_bytes += episode.nbytes + episode.calls.nbytes_on_disk if summary else 0
            del self._ending[episode.id]
            self._remember(episode, receipt)
        episode.close()
        closing.done.set_result(receipt)
        return receipt

    def _remember(self, episode: EpisodeBuilder, receipt: Receipt) -> Receipt:
        self._receipts[episode.id] = (episode.start.robot_id, receipt)
        while len(self._receipts) > MAX_RECEIPTS:
            self._receipts.popitem(last=False)
        return receipt

    def _episodes(self) -> list[EpisodeBuilder]:
        with self._lock:
            return [*self._open.values(), *(closing.episode for closing in self._ending.values())]

    def _watch(self) -> None:
        while not self._closing.wait(self._idle_limit_s / 4):
            self._close_idle(self._idle_limit_s)

    def _close_idle(self, limit_s: float) -> None:
        with self._lock:
            idle = [each for each in self._open.values() if time.monotonic() - each.touched >= limit_s]
        for episode in idle:
            try:
                receipt = self.end(episode.id, None)
            except KeyError:
                continue  # its robot ended it meanwhile
            except OSError:
                lost = "it is lost" if self._closing.is_set() else "retrying later"
                _LOG.exception("episode %s was left open and could not be written: %s", episode.id, lost)
            except Exception:
                _LOG.exception("episode %s was left open and can't be written: it is lost", episode.id)
                self.discard(episode.id)
            else:
                reason = (episode.ending or VANISHED).end_reason
                _LOG.warning("episode %s was left open: closed as %s, %d steps", episode.id, reason, receipt.steps)


class Room:
    """Writes surplus calls to the disk, and says whether a robot may add more. Any thread.

    Every robot has a share. What an episode holds beyond half of it is written to files by a thread of its own, so a
    robot is rejected only when the disk does not take the calls, and never for what another robot holds.

    `open_episodes()` are looked at; `free_bytes()` is how much room the disk has.
    """

    def __init__(
        self, limits: Limits, open_episodes: Callable[[], Sequence[EpisodeBuilder]], free_bytes: Callable[[], int]
    ) -> None:
        self.limits, self._open, self._free_bytes = limits, open_episodes, free_bytes
        self._fault = ""
        self._closing = False
        self.wake = threading.Event()
        """set to have surplus calls written"""
        self._writer = threading.Thread(target=self._write, name="spill", daemon=True)
        self._writer.start()

    def check_start(self, robot_id: str) -> None:
        """Raise BusyError when the robot, or all together, may not open another episode."""
        episodes, limits = self._open(), self.limits
        if len(episodes) >= limits.open:
            raise BusyError(f"{limits.open} episodes are already open: end one of them")
        if sum(each.start.robot_id == robot_id for each in episodes) >= limits.open_per_robot:
            raise BusyError(f"robot '{robot_id}' has {limits.open_per_robot} open episodes already: end one of them")
        if full := self.full(robot_id):
            raise full

    def full(self, robot_id: str) -> BusyError | None:
        """The error when the robot's episodes hold more than its share, and no call may be added. Never waits."""
        used = Counter[str]()
        for episode in self._open():
            used[episode.start.robot_id] += episode.nbytes
        share = self.limits.memory_per_robot
        if used.total() > self.limits.memory:
            share = min(share, self.limits.memory // len(used))
        if used[robot_id] <= share:
            return None
        self.wake.set()
        why = self._fault or "the disk writes more slowly than data arrives"
        return BusyError(
            f"open episodes of robot '{robot_id}' hold {used[robot_id] >> 10} KiB in memory, its share is"
            f" {share >> 10} KiB ({why}): end the episode, or request without an episode id"
        )

    def close(self) -> None:
        """Write no more."""
        self._closing = True
        self.wake.set()
        self._writer.join()

    def kept(self, episode: EpisodeBuilder) -> int:
        """How many bytes of an episode's calls stay in memory; beyond them set `wake`. Never waits."""
        episodes = self._open()
        own = sum(each.start.robot_id == episode.start.robot_id for each in episodes)
        return min(self.limits.memory_per_robot // max(1, own), self.limits.memory // max(1, len(episodes))) // 2

    def _write(self) -> None:
        while not self._closing:
            self.wake.wait(RETRY_S if self._fault else None)
            self.wake.clear()
            self._spill()

    def _spill(self) -> None:
        episodes, fault = self._open(), ""
        for episode in episodes:
            kept = self.kept(episode)
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
