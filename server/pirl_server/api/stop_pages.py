"""Lets the dashboard, a page of the REST port, call the port of emergency stops: another origin to a browser.

A page of any other origin gets no answer that its browser would show it, as before. Where the server runs without
tokens the guard still rejects a host name that is neither an address nor localhost: a site that renamed itself.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pirl_server.security.web_origin import is_neighbour

ALLOWED = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "authorization, content-type",
    "Access-Control-Max-Age": "600",
}


class DashboardOrigin:
    """ASGI middleware, outside the guard: answers a browser that asks whether that page may call, and marks replies."""

    def __init__(self, app: ASGIApp, rest_port: int) -> None:
        self._app, self._rest_port = app, rest_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on; one of the dashboard as if it came from a page of this port."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin, host = headers.get("origin", ""), headers.get("host", "")
        if not (self._rest_port and origin and is_neighbour(host, origin, self._rest_port)):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            answer = Response(status_code=204, headers={"Access-Control-Allow-Origin": origin, **ALLOWED})
            await answer(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Access-Control-Allow-Origin"] = origin
            await send(message)

        kept = [(name, value) for name, value in scope["headers"] if name not in (b"origin", b"sec-fetch-site")]
        await self._app({**scope, "headers": kept}, receive, marked)
