"""A job's events as server-sent events (WHATWG HTML, section 9.2): id, event, data; comments keep the line open.

What is old is read from the file for each client, a block at a time; what is new comes from the job's feed, which reads
it once for all. A client that falls behind the feed reads from the file again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from pirl_server.api.job_feed import JobFeed, JobFeeds, encoded
from pirl_server.api.reads import Reads
from pirl_server.jobs.events import EventTail


@dataclass(frozen=True)
class Followed:
    """A job that is followed: `tail(after)` reads its file after an id, `ended()` says whether it is over."""

    job_id: str
    tail: Callable[[int], EventTail]
    ended: Callable[[], bool]


async def stream(job: Followed, after: int, heartbeat_s: float, reads: Reads, feeds: JobFeeds) -> AsyncIterator[str]:
    """Yield events after an id as they appear, a comment after `heartbeat_s` of silence, and stop with the job.

    A client that does not read holds one block of events here: the next one is read when it has taken this.
    """
    while True:
        tail = await reads.aside(lambda: job.tail(after))  # noqa: B023
        while True:
            read = await reads.aside(lambda: _look(job, tail, after))  # noqa: B023
            after = read.last
            if read.text:
                yield read.text
            if read.over and not read.text:
                return
            if read.at_end or feeds.has(job.job_id, after):
                break
            await reads.paced()
        with feeds.joined(job.job_id, tail, after, job.ended, reads) as feed:
            async for text, reached in _live(feed, after, heartbeat_s):
                after = reached
                yield text
            if feed.over and after >= feed.floor:
                return


async def _live(feed: JobFeed, after: int, heartbeat_s: float) -> AsyncIterator[tuple[str, int]]:
    """Yield what is new with the id of its last event, until the feed is over or no longer has what comes next."""
    spoken = time.monotonic()
    while after >= feed.floor:
        text, after = feed.since(after)
        if not text and feed.over:
            return
        if not text and not await feed.wait(max(0.01, spoken + heartbeat_s - time.monotonic())):
            text = ": keep-alive\n\n"
        if text:
            yield text, after
            spoken = time.monotonic()


@dataclass(frozen=True)
class _Read:
    text: str
    last: int
    at_end: bool
    over: bool


def _look(job: Followed, tail: EventTail, after: int) -> _Read:
    over = job.ended()  # asked before reading: what is written in between is still read
    events = tail.read()
    return _Read("".join(map(encoded, events)), events[-1].id if events else after, tail.at_end, over)
