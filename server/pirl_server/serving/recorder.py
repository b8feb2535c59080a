"""Keeps the open episodes of all robots in memory and publishes each when it ends, or when its robot has vanished."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import dataclass

from pirl_server.disk import check_name
from pirl_server.episodes import EpisodeStore
from pirl_server.serving.open_episode import Ending, OpenEpisode, Start
from pirl_server.serving.refusals import BusyError

_LOG = logging.getLogger(__name__)
VANISHED = Ending(success=None, label_source="", end_reason="fault")


@dataclass(frozen=True)
class Receipt:
    """Where an episode went: path of its Zarr group relative to the store, empty when nothing was published."""

    path: str
    steps: int


class Recorder:
    """The one writer of a store. Every method may be called from any thread.

    An episode without a policy call or without an executed step is dropped: it holds nothing to learn from.
    """

    def __init__(
        self, store: EpisodeStore, max_open: int = 64, max_bytes: int = 4 * 2**30, idle_limit_s: float = 60.0
    ) -> None:
        self._store = store
        self._max_open, self._max_bytes, self._idle_limit_s = max_open, max_bytes, idle_limit_s
        self._open: dict[str, OpenEpisode] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        store.sweep()
        self._janitor = threading.Thread(target=self._watch, name="episodes", daemon=True)
        self._janitor.start()

    @property
    def open_episodes(self) -> int:
        """How many are being recorded. Never waits for the disk."""
        return len(self._open)

    def is_open(self, episode_id: str) -> bool:
        """Whether an episode is being recorded. Never waits for the disk."""
        return episode_id in self._open

    def start(self, start: Start) -> OpenEpisode:
        """Begin an episode. Raises ValueError for a robot id that may not name a folder, BusyError at the limit."""
        check_name("robot id", start.robot_id)
        episode = OpenEpisode(uuid.uuid4().hex, start)
        with self._lock:
            if len(self._open) >= self._max_open:
                raise BusyError(f"{self._max_open} episodes are open already: end one of them")
            self._open[episode.id] = episode
        return episode

    def find(self, episode_id: str) -> OpenEpisode:
        """Return an open episode. Raises KeyError when none has this id, BusyError when memory is used up."""
        with self._lock:
            episode = self._open[episode_id]
            if sum(each.bytes for each in self._open.values()) > self._max_bytes:
                raise BusyError(f"open episodes hold more than {self._max_bytes >> 20} MiB: end this one")
        return episode

    def end(self, episode_id: str, ending: Ending) -> Receipt:
        """Publish the episode: on the disk when this returns. Raises KeyError for an unknown id.

        When the disk refuses (OSError) nothing is visible and the episode stays open: ending it again is allowed.
        """
        with self._lock:
            episode = self._open.pop(episode_id)
        if not episode.complete:
            return Receipt("", episode.steps)
        try:
            summary = self._store.write(episode.finish(ending))
        except OSError:
            with self._lock:
                self._open[episode_id] = episode
            raise
        return Receipt(summary.path, summary.steps)

    def label(self, episode_id: str, success: bool | None, source: str, note: str) -> bool | None:
        """Label an episode, open or published; return what it was labelled before. KeyError for an unknown id."""
        with self._lock:
            episode = self._open.get(episode_id)
        if episode is None:
            return self._store.label(episode_id, success, source, note)
        return episode.set_label(success, source, note)

    def discard(self, episode_id: str) -> Receipt:
        """Drop the episode. Raises KeyError for an unknown id."""
        with self._lock:
            return Receipt("", self._open.pop(episode_id).steps)

    def close(self) -> None:
        """Publish what is open as truncated and stop watching. Nothing may be reported after this."""
        self._closing.set()
        self._janitor.join()
        self._close_idle(0.0)

    def _watch(self) -> None:
        while not self._closing.wait(self._idle_limit_s / 4):
            self._close_idle(self._idle_limit_s)

    def _close_idle(self, limit_s: float) -> None:
        with self._lock:
            idle = [each.id for each in self._open.values() if time.monotonic() - each.touched >= limit_s]
        for episode_id in idle:
            try:
                receipt = self.end(episode_id, VANISHED)
                _LOG.warning("episode %s was left open: closed as truncated, %d steps", episode_id, receipt.steps)
            except KeyError:
                continue  # its robot ended it meanwhile
            except OSError:
                _LOG.exception("episode %s was left open and could not be written: it is lost", episode_id)
                self.discard(episode_id)
