"""Clients that follow jobs' events: `python followers.py PORT TOKEN JOB READING OTHER SILENT`.

In a process of their own. READING of them read the events of JOB; SILENT ask for those of OTHER and never read: they
are more than the buffers of a connection take, so that the server soon waits for these clients. Prints
`ready` when all are connected. A line on stdin ends a count of the events that the reading ones got since the last one;
it is answered with a JSON object of how late they came.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any

import numpy as np

SILENT_BYTES = 16 * 1024
"""that a silent client's kernel takes in"""


class Follower:
    """One connection."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []

    async def open(self, port: int, token: str, job: str, silent: bool) -> None:
        made = socket.socket()
        if silent:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SILENT_BYTES)
        made.connect(("127.0.0.1", port))
        made.setblocking(False)
        self.reader, self.writer = await asyncio.open_connection(sock=made, limit=2**16)
        words = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        self.writer.write(f"GET /v1/jobs/{job}/events HTTP/1.1\r\n{words}\r\n".encode())

    async def read(self) -> None:
        while line := await self.reader.readline():
            if line.startswith(b"data: "):
                self.late_ms.append(1000 * (time.time() - json.loads(line[6:])["time"]))


async def follow(port: int, token: str, job: str, reading: int, other: str, silent: int) -> None:
    followers = [Follower() for _ in range(reading + silent)]
    for number, each in enumerate(followers):
        await each.open(port, token, job if number < reading else other, number >= reading)
        if number >= reading:
            each.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.02)  # below the token's rate
    tasks = [asyncio.create_task(each.read()) for each in followers[:reading]]
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(late(followers[:reading])), flush=True)
    for task in tasks:
        task.cancel()


def late(followers: list[Follower]) -> dict[str, Any]:
    times = [each for follower in followers for each in follower.late_ms]
    least = min((len(follower.late_ms) for follower in followers), default=0)
    for follower in followers:
        follower.late_ms = []
    p50, p99 = np.percentile(times or [0.0], (50, 99)).tolist()
    return {"events": len(times), "least": least, "p50_ms": p50, "p99_ms": p99}


if __name__ == "__main__":
    port, token, job, reading, other, silent = sys.argv[1:]
    asyncio.run(follow(int(port), token, job, int(reading), other, int(silent)))
