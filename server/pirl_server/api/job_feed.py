"""The newest events of a job, read and encoded once for all who follow it, however many they are."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pirl_server.api.reads import Reads
from pirl_server.jobs.events import Event, EventTail

_LOG = logging.getLogger(__name__)
POLL_S = 0.1
KEPT_CHARACTERS, LARGE = 256 * 1024, 8 * 1024
"""of text that is kept for those who are a little behind; and from where on the next events are read at once"""


def encoded(event: Event) -> str:
    """Return an event as WHATWG HTML, section 9.2, has it."""
    return f"id: {event.id}\nevent: {event.type}\ndata: {event.json}\n\n"


class JobFeed:
    """Follows one job from the id `after` on, from where `tail` stands. For one event loop."""

    def __init__(self, tail: EventTail, after: int, ended: Callable[[], bool], reads: Reads) -> None:
        self.floor = after
        """id of the newest event that is no longer kept"""
        self.over = False
        """nothing more will come"""
        self.followers = 0
        self._tail, self._ended, self._reads = tail, ended, reads
        self._kept: deque[tuple[int, str]] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    def since(self, after: int) -> tuple[str, int]:
        """Return the text of what came after an id that is not below the floor, and the id of the last event."""
        found = [(number, text) for number, text in self._kept if number > after]
        return "".join(text for _, text in found), found[-1][0] if found else after

    async def wait(self, seconds: float) -> bool:
        """Wait for more, or the end; False: neither came in time."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
            return True
        return False

    async def _run(self) -> None:
        try:
            while not self.over:
                over, events = await self._reads.aside(self._look)
                before = self._size
                for number, text in events:
                    self._keep(number, text)
                self.over = over and not events
                if events or self.over:
                    self._news.set()
                    self._news = asyncio.Event()
                await (self._reads.paced() if self._size - before > LARGE else asyncio.sleep(POLL_S))
        except Exception:
            _LOG.exception("a job's events can't be read: those who follow it have to connect again")
        finally:
            self.over = True
            self._news.set()

    def _look(self) -> tuple[bool, list[tuple[int, str]]]:
        over = self._ended()  # asked before reading: what is written in between is still read
        return over, [(event.id, encoded(event)) for event in self._tail.read()]

    def _keep(self, number: int, text: str) -> None:
        self._kept.append((number, text))
        self._size += len(text)
        while self._size > KEPT_CHARACTERS and len(self._kept) > 1:
            self.floor, gone = self._kept.popleft()
            self._size -= len(gone)


class JobFeeds:
    """The feeds of the jobs that are followed now."""

    def __init__(self) -> None:
        self._open: dict[str, JobFeed] = {}

    def has(self, job_id: str, after: int) -> bool:
        """Whether the job's feed has all that came after an id."""
        feed = self._open.get(job_id)
        return feed is not None and not feed.over and after >= feed.floor

    @contextmanager
    def joined(
        self, job_id: str, tail: EventTail, after: int, ended: Callable[[], bool], reads: Reads
    ) -> Iterator[JobFeed]:
        """Share the job's feed; the first one to join gives it its tail. The last one to leave ends it."""
        feed = self._open.get(job_id)
        if feed is None or feed.over:
            feed = self._open[job_id] = JobFeed(tail, after, ended, reads)
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                feed.task.cancel()
                if self._open.get(job_id) is feed:
                    del self._open[job_id]
