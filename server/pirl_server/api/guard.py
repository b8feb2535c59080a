"""Lets REST calls in or not, before anything of them is read: the same gate as gRPC's."""

from __future__ import annotations

import ipaddress

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pirl_server.api import problems
from pirl_server.security import PUBLIC, ROUTES, Caller, DeniedError, Gate, Limiter

ANY_TOKEN = ROUTES["GET", "/v1/info"]
_NEVER_LIMITED = "/emergency-stop"


class Guard:
    """ASGI middleware: who calls, and how often. What that caller may do is checked by `check_scope`, once routed."""

    def __init__(self, app: ASGIApp, gate: Gate, limiter: Limiter | None = None) -> None:
        self._app, self._gate, self._limiter = app, gate, limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with its Caller, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})["caller"] = self._enter(scope)
            scope["state"]["gate"] = self._gate
        except DeniedError as denied:
            await problems.denied(denied)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _enter(self, scope: Scope) -> Caller:
        headers, path = Headers(scope=scope), scope["path"]
        if self._gate.open and _is_from_a_page(headers):
            raise DeniedError("forbidden", "pages of other sites may not call: this server asks for no token")
        allowed = PUBLIC if ROUTES.get((scope["method"], path)) == PUBLIC else ANY_TOKEN
        peer = f"rest:{scope['client'][0] if scope.get('client') else 'local'}"
        caller = self._gate.enter(f"{scope['method']} {path}", allowed, headers.get("authorization", ""), peer)
        if allowed != PUBLIC and not path.endswith(_NEVER_LIMITED):
            self._check_rate(caller)
        return caller

    def _check_rate(self, caller: Caller) -> None:
        if self._limiter is not None and (wait_ns := self._limiter.take(caller.name)):
            raise DeniedError("too-many-requests", "asked too often", wait_ns / 1e9)


async def check_scope(request: Request) -> None:
    """Raise DeniedError unless the route's row of the table allows one of the caller's scopes. A dependency of all."""
    key = (request.method, request.scope["route"].path)
    if ROUTES.get(key) != PUBLIC:
        request.state.gate.check_scope(request.state.caller, " ".join(key), ROUTES.get(key))


def _is_from_a_page(headers: Headers) -> bool:
    """Say whether a browser sends this for a page of another site, or of a site that renamed itself to this address."""
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return True
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name != "localhost"
    return False
