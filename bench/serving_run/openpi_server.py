"""openpi's server pattern: websockets, openpi-client's msgpack, the policy called in the event loop, metadata first."""

from __future__ import annotations

import asyncio
import http
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
from openpi_client import msgpack_numpy
from payloads import ACTION_DIM, HORIZON
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from worker import work

LOOP = asyncio.new_event_loop()


def healthz(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None


async def opened(model_ms: float) -> Server:
    async def converse(websocket: ServerConnection) -> None:
        packer = msgpack_numpy.Packer()
        await websocket.send(packer.pack({}))
        previous_ms = None
        async for message in websocket:
            began = time.monotonic()
            msgpack_numpy.unpackb(message)
            if model_ms:
                time.sleep(model_ms / 1e3)
            timing = {"infer_ms": 1e3 * (time.monotonic() - began)}
            if previous_ms is not None:
                timing["prev_total_ms"] = previous_ms
            actions = np.zeros((HORIZON, ACTION_DIM), np.float32)
            await websocket.send(packer.pack({"actions": actions, "server_timing": timing}))
            previous_ms = 1e3 * (time.monotonic() - began)

    return await serve(converse, "127.0.0.1", 0, compression=None, max_size=None, process_request=healthz)


def open_(payload: str, model_ms: float) -> dict[str, int]:
    future: Future[Any] = asyncio.run_coroutine_threadsafe(opened(model_ms), LOOP)
    return {"port": future.result().sockets[0].getsockname()[1]}


if __name__ == "__main__":
    threading.Thread(target=LOOP.run_forever, daemon=True).start()
    work({"open": open_})
