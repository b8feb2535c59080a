"""/dashboard: robots, jobs, episodes, models and the learning loop in a browser.

Static files of the folder `web`, which load nothing from elsewhere and use the REST API only. They need no token, since
they say the same on every server; the page asks for one where the API does.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi import Path as PathParameter

from pirl_server.api.dependencies import ServicesDep
from pirl_server.api.problems import not_found
from pirl_server.security.web_origin import host_name

router = APIRouter(include_in_schema=False)
WEB = Path(__file__).parent / "web"
PAGE = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}  # fmt: skip
"""of the files that are served; others of the folder are not"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:;"
    " connect-src 'self'{stops}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\]")
Name = Annotated[str, PathParameter(max_length=100)]
IfNoneMatch = Annotated[str | None, Header(max_length=1000)]


@dataclass(frozen=True)
class WebFile:
    """One file of the page."""

    data: bytes
    media_type: str
    etag: str


@cache
def web_files() -> dict[str, WebFile]:
    """Return the files by path below `web`. Read once: a request names one of these, never a path of the disk."""
    paths = [path for path in WEB.rglob("*") if path.suffix in MEDIA_TYPES]
    return {path.relative_to(WEB).as_posix(): _read(path) for path in paths}


def _read(path: Path) -> WebFile:
    data = path.read_bytes()
    return WebFile(data, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:24]}"')


@router.get("/dashboard")
async def dashboard(request: Request, services: ServicesDep, if_none_match: IfNoneMatch = None) -> Response:
    """Show the page."""
    return _answer(PAGE, request, services.stop_port, if_none_match)


@router.get("/dashboard/{name:path}")
async def file(name: Name, request: Request, services: ServicesDep, if_none_match: IfNoneMatch = None) -> Response:
    """Return what the page loads."""
    return _answer(name, request, services.stop_port, if_none_match)


def _answer(name: str, request: Request, stop_port: int, if_none_match: str | None) -> Response:
    found = web_files().get(name)
    if found is None:
        raise not_found("file of the dashboard", name)
    headers = {
        "Content-Security-Policy": _POLICY.format(stops=_stop_origin(request, stop_port)),
        "Cache-Control": "no-cache",
        "ETag": found.etag,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    if if_none_match == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type=found.media_type, headers=headers)


def _stop_origin(request: Request, stop_port: int) -> str:
    """Return the origin of the port of emergency stops, as a source of the policy; empty: there is none."""
    name = host_name(request.headers.get("host", ""))
    return f" {request.url.scheme}://{name}:{stop_port}" if stop_port and _HOST.fullmatch(name) else ""
