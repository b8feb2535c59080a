"""/dashboard: the learning loop in a browser: where it stands, what each round came to, pause, resume, cancel.

Two static files that load nothing from elsewhere and use the REST API only. They need no token, since they say the same
on every server; the page asks for one where the API does.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter(include_in_schema=False)
_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}


@router.get("/dashboard", response_class=FileResponse)
def dashboard() -> FileResponse:
    """Show the page."""
    return FileResponse(_HERE / "dashboard.html", media_type="text/html", headers=_HEADERS)


@router.get("/dashboard.js", response_class=FileResponse)
def script() -> FileResponse:
    """Return what it runs."""
    return FileResponse(_HERE / "dashboard.js", media_type="text/javascript", headers=_HEADERS)
