"""/v1/audit: who did what, when, and why: the newest lines of the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from pirl_server.api.dependencies import Limit, Services, ServicesDep
from pirl_server.api.described import Described
from pirl_server.api.problems import no_storage, responses

router = APIRouter(prefix="/v1", tags=["health"])
Events = Annotated[
    list[Annotated[str, Query(max_length=100)]] | None,
    Query(max_length=20, description="only these events, such as promoted or rolled back; may be repeated"),
]
_OWN = ("time", "event", "actor", "result")


class AuditEntry(Described):
    """One line of the audit log."""

    time: str
    """ISO 8601, UTC"""
    event: str = Field(examples=["promoted"])
    """what was done, or tried"""
    actor: str
    """who did it: name and address of a token, or a part of the server, such as a loop"""
    result: str
    """done, notified and others"""
    details: dict[str, str] = Field(examples=[{"version": "0ddba11c0de5", "reason": "91 of 100 against 80 of 100"}])
    """to what, and why: version, robot, job, episode, reason"""


class AuditList(Described):
    """Lines of the audit log, newest first."""

    data: list[AuditEntry]
    """the lines, of the newest 4 MiB of the log"""


@router.get("/audit", operation_id="listAudit", response_model=AuditList, responses=responses(422, 503))
async def list_audit(services: ServicesDep, event: Events = None, limit: Limit = 50) -> Response:
    """List what was done lately: promotions, rollbacks with their evidence, stops, labels, jobs."""
    return await services.reads.answer(lambda: _list(services, event or [], limit))


def _list(services: Services, events: list[str], limit: int) -> AuditList:
    try:
        lines = services.registry.audit_log.newest(limit, events)
    except OSError as error:
        raise no_storage("the audit log", error) from None
    return AuditList(data=[_entry(line) for line in lines])


def _entry(line: dict[str, str]) -> AuditEntry:
    details = {name: value for name, value in line.items() if name not in _OWN}
    return AuditEntry(details=details, **{name: line[name] for name in _OWN})
