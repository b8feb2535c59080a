"""/v1/jobs/{job_id}/metrics: the numbers of a job as series, for curves."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from pirl_server.api.dependencies import JobId, Services, ServicesDep
from pirl_server.api.described import Described
from pirl_server.api.problems import not_found, responses
from pirl_server.jobs import metric_store
from pirl_server.jobs.metric_store import Series

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])
POINTS, MAX_POINTS, MAX_NAMES = 300, 5000, 100
Name = Annotated[str, Field(max_length=200)]


class SeriesView(Described):
    """One number over a job. Lists of one length: point i is `values[i]` at `steps[i]`."""

    name: str
    """what the job calls it"""
    count: int
    """points later than `after` that there are; with more than `points` of them the extremes of each stretch remain"""
    steps: list[float]
    """gradient steps or environment steps, rising; what a resumed job did again is here once"""
    times: list[float]
    """seconds since 1970, wall clock"""
    values: list[float | None]
    """null: not finite"""

    @classmethod
    def of(cls, found: Series) -> SeriesView:
        """Show a series; JSON knows no NaN."""
        records = found.records
        values = [value if math.isfinite(value) else None for value in records["value"].tolist()]
        return cls(
            name=found.name, count=found.count, steps=records["step"].tolist(), times=records["time"].tolist(),
            values=values,
        )  # fmt: skip


class JobMetrics(Described):
    """Numbers that a job has reported so far."""

    names: list[str]
    """of all series that there are"""
    data: list[SeriesView]
    """those that were asked for"""


@router.get("/metrics", operation_id="getJobMetrics", response_model=JobMetrics, responses=responses(404, 422))
async def metrics(
    job_id: JobId,
    services: ServicesDep,
    name: Annotated[
        list[Name] | None, Query(max_length=MAX_NAMES, description="only these series; may be repeated")
    ] = None,
    after: Annotated[
        float | None, Query(allow_inf_nan=False, description="only points of later steps than this one")
    ] = None,
    points: Annotated[int, Query(ge=4, le=MAX_POINTS, description="most points of a series")] = POINTS,
) -> Response:
    """Get the numbers of a job as series. A series that is not there yet is left out.

    To follow a running job, pass the last step as `after`.
    """
    return await services.reads.answer(lambda: _metrics(services, job_id, name, after, points))


def _metrics(services: Services, job_id: str, chosen: list[str] | None, after: float | None, points: int) -> JobMetrics:
    try:
        directory = services.jobs.hosted.directory(job_id)
    except KeyError:
        raise not_found("job", job_id) from None
    found = metric_store.read(directory, chosen, after, points)
    return JobMetrics(names=metric_store.names(directory), data=[SeriesView.of(each) for each in found])
