"""A job's events as server-sent events (WHATWG HTML, section 9.2): id, event, data; comments keep the line open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from pirl_server.jobs.events import Event, EventTail

POLL_S = 0.1


async def stream(tail: EventTail, ended: Callable[[], bool], heartbeat_s: float) -> AsyncIterator[str]:
    """Yield events as they appear, a comment after `heartbeat_s` of silence, and stop when the job has ended.

    A client that does not read holds one block of events here: the next one is read when it has taken this.
    """
    spoken = time.monotonic()
    while True:
        over, events = await asyncio.to_thread(_look, tail, ended)
        if events:
            yield "".join(map(_encode, events))
            spoken = time.monotonic()
            continue
        if over:
            return
        if time.monotonic() - spoken >= heartbeat_s:
            yield ": keep-alive\n\n"
            spoken = time.monotonic()
        await asyncio.sleep(POLL_S)


def _look(tail: EventTail, ended: Callable[[], bool]) -> tuple[bool, list[Event]]:
    over = ended()  # asked before reading: what is written in between is still read
    return over, tail.read()


def _encode(event: Event) -> str:
    data = json.dumps({"time": event.time, **event.data})
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"
