"""Errors as RFC 9457 problem details (application/problem+json); `type` is stable, `detail` is for people.

Their size is bounded, whatever the request was: texts are cut and escaped, and never repeat more than an excerpt of it.
"""

from __future__ import annotations

import errno
import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field, JsonValue
from starlette.exceptions import HTTPException

from pirl_server.api.described import Described
from pirl_server.api.examples import add_examples
from pirl_server.api.problem_kinds import KINDS
from pirl_server.config.fields import message
from pirl_server.config.jobs import known_fields
from pirl_server.registry.promotion import PromotionRefusedError
from pirl_server.rpc.denied import DeniedError
from pirl_server.security.permissions import PUBLIC, ROUTES

_LOG = logging.getLogger(__name__)
_DENIED = {"unauthenticated": 401, "forbidden": 403, "too-many-requests": 429}
MEDIA_TYPE = "application/problem+json"
MAX_EXCERPT, MAX_MESSAGE, MAX_DETAIL, MAX_ERRORS = 80, 500, 2000, 20
"""characters of a value of the request, of one field's message, of all; fields that are listed"""
_TYPES: list[JsonValue] = [f"/problems/{kind}" for kind in KINDS]


class FieldError(Described):
    """One field at fault."""

    field: str
    """path of the field in the request"""
    message: str
    """what is wrong with it, and the fix"""


class Problem(Described):
    """Why a request was not done."""

    type: str = Field(examples=["/problems/not-found"], json_schema_extra={"enum": _TYPES})
    """stable name of the kind of problem"""
    title: str
    """the kind as text"""
    status: int
    """HTTP status"""
    detail: str
    """what is wrong with this request, for people"""
    errors: list[FieldError] = Field(default=[])
    """each field at fault"""


class ProblemError(Exception):
    """Raise it in a handler: the client gets the problem."""

    def __init__(self, status: int, kind: str, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        title = kind.replace("-", " ").capitalize()
        listed = [
            FieldError(field=excerpt(error.field, 2 * MAX_EXCERPT), message=excerpt(error.message, MAX_MESSAGE))
            for error in errors[:MAX_ERRORS]
        ]
        self.problem = Problem(
            type=f"/problems/{kind}", title=title, status=status, detail=excerpt(detail, MAX_DETAIL), errors=listed
        )


def excerpt(text: str, limit: int = MAX_EXCERPT) -> str:
    """Return the beginning of a text from outside, with what is not printable, or no Unicode, escaped."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def not_found(what: str, name: str) -> ProblemError:
    """Make the answer for a name that means nothing here."""
    return ProblemError(404, "not-found", f"no {what} '{excerpt(name)}'")


def conflict(detail: str, errors: tuple[FieldError, ...] = ()) -> ProblemError:
    """Make the answer for a request that the present state forbids."""
    return ProblemError(409, "conflict", detail, errors)


def precondition_failed(detail: str) -> ProblemError:
    """Make the answer for `If-Match` of a state that is no longer the present one."""
    return ProblemError(412, "precondition-failed", detail)


def gate_rejection(version: str, refused: PromotionRefusedError) -> ProblemError:
    """Make the answer for a version that the promotion gate rejected, with each reason."""
    errors = [FieldError(field="version", message=reason) for reason in refused.result.refusals]
    return conflict(f"the promotion gate rejected {version}: {refused}", tuple(errors))


def invalid(field: str, message: str) -> ProblemError:
    """Make the answer for a value that is well formed but cannot be used."""
    return ProblemError(422, "invalid-request", f"{field}: {message}", (FieldError(field=field, message=message),))


def no_storage(what: str, error: OSError) -> ProblemError:
    """Make the answer for what the disk rejects to keep."""
    fix = ": free disk space, then retry" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return ProblemError(503, "no-storage", f"{what} can't be stored: {error}{fix}")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says about these error statuses."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {code: {"description": "Problem", "content": {MEDIA_TYPE: {"schema": schema}}} for code in statuses}


def install(app: FastAPI) -> None:
    """Answer every error of the application, the framework's own included, as a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(DeniedError, _on_denied)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    plain = app.openapi
    app.openapi = lambda: _complete(plain())  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add what FastAPI can't know: the schema of problems, and who needs a token."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= {**schema.pop("$defs", {}), "Problem": schema}
    text = "a token of `pirl token create`; none where the server was started without tokens"
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": text}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scopes = ROUTES[method.upper(), path]
            operation["security"] = [] if scopes == PUBLIC else [{"token": []}]
            if scopes != PUBLIC:
                operation["x-scopes"] = sorted(scopes)
    add_examples(document)
    return document


def answer(problem: Problem) -> JSONResponse:
    """Make the response of a problem."""
    return JSONResponse(problem.model_dump(), problem.status, media_type=MEDIA_TYPE)


async def _on_problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return answer(error.problem)


def denied(error: DeniedError) -> JSONResponse:
    """Make the response to a denied call: 401 with WWW-Authenticate, 403, or 429 with Retry-After."""
    response = answer(ProblemError(_DENIED[error.kind], error.kind, str(error)).problem)
    if error.kind == "unauthenticated":
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return response


async def _on_denied(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DeniedError)
    return denied(error)


async def _on_validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    errors = [_field_error(fault) for fault in faults[:MAX_ERRORS]]
    if more := len(faults) - len(errors):
        errors[-1] = FieldError(field="", message=f"and {more + 1} more")
    detail = "; ".join(f"{fault.field}: {fault.message}" for fault in errors)
    return answer(ProblemError(422, "invalid-request", detail, tuple(errors)).problem)


def _field_error(fault: dict[str, Any]) -> FieldError:
    """Name the field and what it must be. A key that is not known, or a union's tag, comes from the request."""
    field = ".".join(excerpt(str(part)) for part in fault["loc"])
    said = message(fault, known_fields(tuple(fault["loc"][1:])))
    return FieldError(field=field, message=excerpt(said, MAX_MESSAGE))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kinds = {404: "not-found", 405: "method-not-allowed"}
    kind = kinds.get(error.status_code, "http-error")
    response = answer(ProblemError(error.status_code, kind, str(error.detail)).problem)
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes of this path; starlette names those of the first one.

    A path that is written out is another resource than one with a name in its place.
    """
    path, routes = request.url.path, request.app.state.routes
    fitting = [route for route in routes if route.path_regex.match(path)]
    routes = [route for route in fitting if route.path == path] or fitting
    return {method for route in routes for method in route.methods or ()}


async def _on_bug(_: Request, error: Exception) -> JSONResponse:
    _LOG.error("unexpected error", exc_info=error)
    return answer(ProblemError(500, "internal-error", "internal error: see the server's log").problem)
