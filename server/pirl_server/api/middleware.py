"""Authorises REST calls by their headers, before the body is read, with the access control of gRPC."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import Request
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pirl_server.api import problems
from pirl_server.api.request_body import refusal
from pirl_server.rpc.denied import DeniedError
from pirl_server.security.access_control import AccessControl, Caller
from pirl_server.security.permissions import PUBLIC, ROUTES
from pirl_server.security.rate_limiter import Limiter
from pirl_server.security.web_origin import is_from_a_page
from pirl_server.telemetry.metrics import Metrics

ANY_TOKEN = ROUTES["GET", "/v1/info"]
_NEVER_LIMITED = "/emergency-stop"


class Guard:
    """ASGI middleware: who calls, whether the route's row of the table lets that scope, and how often.

    `routes` are those of the application. A call that fits none of them takes any token: it is answered 404 or 405.
    """

    def __init__(
        self, app: ASGIApp, gate: AccessControl, routes: Sequence[Route], limiter: Limiter | None = None
    ) -> None:
        self._app, self._gate, self._routes, self._limiter = app, gate, routes, limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with its Caller, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})["caller"] = self._enter(scope)
            scope["state"]["gate"] = self._gate
        except DeniedError as denied:
            await refusal(scope, problems.denied(denied))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _enter(self, scope: Scope) -> Caller:
        headers, path = Headers(scope=scope), scope["path"]
        fetch = None if headers.get("sec-fetch-mode") == "navigate" else headers.get("sec-fetch-site")  # a link
        if self._gate.open and is_from_a_page(headers.get("host", ""), headers.get("origin"), fetch):
            raise DeniedError("forbidden", "cross-origin calls are rejected while the server runs without tokens")
        scope["state"]["row"] = key = self._row(scope)
        allowed = ROUTES.get(key) if key else ANY_TOKEN
        call = " ".join(key or (scope["method"], problems.excerpt(path)))
        peer = f"rest:{scope['client'][0] if scope.get('client') else 'local'}"
        caller = self._gate.enter(call, allowed, headers.get("authorization", ""), peer)
        if allowed != PUBLIC and not path.endswith(_NEVER_LIMITED):
            self._check_rate(caller)
        return caller

    def _row(self, scope: Scope) -> tuple[str, str] | None:
        """Return the row of the table that the call falls under; None when the application has no such route."""
        for route in self._routes:
            if scope["method"] in (route.methods or ()) and route.path_regex.match(scope["path"]):
                return "GET" if scope["method"] == "HEAD" else scope["method"], route.path_format
        return None

    def _check_rate(self, caller: Caller) -> None:
        if self._limiter is not None and (wait_ns := self._limiter.take(caller.name)):
            raise DeniedError("too-many-requests", "rate limit exceeded", wait_ns / 1e9)


class Measured:
    """ASGI middleware, outside the guard: how each call was answered, and how soon its answer began."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                row = scope.get("state", {}).get("row")
                self._metrics.rest_call(row, message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, watched)


async def check_row(request: Request) -> None:
    """Reject a call that was routed otherwise than the guard thought. A dependency of all, so that none slips by.

    Raises DeniedError.
    """
    if request.state.row != (request.method, request.scope["route"].path_format):
        raise DeniedError("forbidden", "this route has no entry in the table of scopes")
