"""A job's events as server-sent events (WHATWG HTML, section 9.2): id, event, data; comments keep the line open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from pirl_server.api.reads import Reads
from pirl_server.jobs.events import Event, EventTail

POLL_S = 0.1


async def stream(tail: EventTail, ended: Callable[[], bool], heartbeat_s: float, reads: Reads) -> AsyncIterator[str]:
    """Yield events as they appear, a comment after `heartbeat_s` of silence, and stop when the job has ended.

    A client that does not read holds one block of events here: the next one is read when it has taken this.
    """
    spoken = time.monotonic()
    while True:
        over, events = await reads.aside(lambda: _look(tail, ended))
        if events:
            yield events
            spoken = time.monotonic()
        elif over:
            return
        elif time.monotonic() - spoken >= heartbeat_s:
            yield ": keep-alive\n\n"
            spoken = time.monotonic()
        await (reads.paced() if events else asyncio.sleep(POLL_S))


def _look(tail: EventTail, ended: Callable[[], bool]) -> tuple[bool, str]:
    over = ended()  # asked before reading: what is written in between is still read
    return over, "".join(map(_encode, tail.read()))


def _encode(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.type}\ndata: {event.json}\n\n"
