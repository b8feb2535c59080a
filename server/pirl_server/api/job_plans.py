"""/v1/job-plans: what a job would do and cost. Nothing is queued."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import Field

from pirl_server.api.dependencies import ServicesDep
from pirl_server.api.described import Described
from pirl_server.api.jobs import check_request
from pirl_server.api.problems import responses
from pirl_server.config.jobs import JobSpec

router = APIRouter(prefix="/v1", tags=["jobs"])


class PlanView(Described):
    """A dry run."""

    lines: list[str]
    """what would happen, one sentence each"""
    amount: int | None
    """how much work it is; null: that is known only from the data"""
    unit: str
    """of the amount"""
    waits_for: int
    """jobs that would start before it, or run"""
    estimated_s: float | None = Field(json_schema_extra={"unit": "s"})
    """how long it would run; null: no earlier job of its kind and task says so"""
    measured_on: int
    """earlier jobs that the estimate is from"""


@router.post("/job-plans", operation_id="dryRunJob", responses=responses(422))
def dry_run(spec: Annotated[JobSpec, Body()], services: ServicesDep) -> PlanView:
    """Check a job as its creation does, and say what it would do, without queueing it."""
    check_request(services, spec)
    return PlanView.model_validate(services.jobs.plan(spec), from_attributes=True)
