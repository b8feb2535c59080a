"""Reads that take milliseconds of the interpreter, two at a time however many are asked for.

Each thread that computes can hold the interpreter for 5 ms before a robot's thread gets it: twenty of them at once
would delay a chunk by a tenth of a second. Those that wait here hold no thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel
from starlette.responses import Response

AT_ONCE = 2
PACE_S = 0.01
"""between two blocks of events, of all streams together: 1.6 MB a second for one, as much for fifty"""
Result = TypeVar("Result")


class Reads:
    """For one event loop."""

    def __init__(self) -> None:
        self._turn, self._pace = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def aside(self, read: Callable[[], Result]) -> Result:
        """Return what `read` returns, called in another thread. Raises what it raises."""
        async with self._turn:
            return await asyncio.to_thread(read)

    async def paced(self) -> None:
        """Wait before the next block of a stream; those who wait take turns."""
        async with self._pace:
            await asyncio.sleep(PACE_S)

    async def answer(self, make: Callable[[], BaseModel]) -> Response:
        """Return what `make` returns as the response, made and encoded in another thread. Raises what it raises."""
        body = await self.aside(lambda: make().model_dump_json().encode())
        return Response(body, media_type="application/json")
