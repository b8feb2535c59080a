"""Reads the body of a request before its handler runs, within a size and a time limit."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pirl_server.api import problems
from pirl_server.api.problems import ProblemError

MAX_BODY = 64 * 1024
"""pydantic and FastAPI take a third of a microsecond per byte of wrong fields, and hold the interpreter meanwhile"""
MAX_STOP_BODY = 16 * 1024
"""of a reason of a thousand characters, however it is escaped"""
BODY_S = 10.0


class Bodies:
    """ASGI middleware, inside the guard: 413 for more than `limit` bytes, 408 for what is not there in time."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY, seconds: float = BODY_S) -> None:
        self._app, self._limit, self._seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its whole body, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._read(scope, receive), self._seconds)
        except ProblemError as error:
            await refusal(scope, problems.answer(error.problem))(scope, receive, send)
            return
        except asyncio.TimeoutError:
            late = ProblemError(408, "request-timeout", f"the body was not received within {self._seconds:g} s")
            await refusal(scope, problems.answer(late.problem))(scope, receive, send)
            return
        if body is None:
            return  # the client has gone
        await self._app(scope, _once(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        announced = Headers(scope=scope).get("content-length", "0")
        if int(announced) > self._limit:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> ProblemError:
        return ProblemError(413, "content-too-large", f"the body has more than {self._limit} bytes: send a smaller one")


def refusal(scope: Scope, response: Response) -> Response:
    """Let the connection end with this answer where the request has a body that will not be read."""
    if Headers(scope=scope).get("content-length", "0") != "0":
        response.headers["Connection"] = "close"
    return response


def _once(body: bytes, receive: Receive) -> Receive:
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay
