"""/v1/jobs: create, list, get, cancel, pause, resume, events."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from pirl_server.api.dependencies import JobId, Limit, Services, ServicesDep, actor
from pirl_server.api.idempotency import IdempotencyKey, submit_once
from pirl_server.api.problems import ProblemError, conflict, invalid, no_storage, not_found, responses
from pirl_server.api.schemas import Damaged, JobPage, JobView
from pirl_server.api.sse import Followed, stream
from pirl_server.config.interchange import ExportEpisodes, ImportEpisodes
from pirl_server.config.jobs import Evaluate, FinetuneEpisodes, JobSpec, Sft
from pirl_server.config.loop import Loop
from pirl_server.config.success import SuccessModel
from pirl_server.jobs.job import DamagedJobError, Job, Status
from pirl_server.registry.promotion import PRODUCTION

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
AfterJob = Annotated[str | None, Query(pattern=r"^job_[0-9a-f]{24}$", description="`last_id` of the page before")]
LastEvent = Annotated[int, Header(alias="Last-Event-ID", ge=0, description="last event that was received")]
EVENT = {
    "type": "object",
    "description": "one event: its fields as server-sent events have them, `data` a JSON object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string", "description": "status, progress, metrics, result or another kind of the job"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
EVENT_EXAMPLE = {"example": {"value": 'id: 3\nevent: progress\ndata: {"done": 1, "total": 3, "message": ""}\n\n'}}
EVENT_STREAM = {
    200: {"content": {"text/event-stream": {"schema": EVENT, "examples": EVENT_EXAMPLE}}, "description": "Events"}
}


@router.post("", status_code=201, operation_id="createJob", responses=responses(409, 422, 503))
def create_job(
    spec: Annotated[JobSpec, Body()],
    services: ServicesDep,
    request: Request,
    response: Response,
    key: IdempotencyKey = None,
) -> JobView:
    """Queue a training, an evaluation, a loop of them, or an import or export of episodes.

    With an `Idempotency-Key` it may be sent again: the answer is the job that is there, and says
    `Idempotency-Replayed: true`, whatever was deleted since; the same key with another body is rejected with 422.
    """
    try:
        job, new = submit_once(services, spec, partial(check_request, services, spec), key, request, response)
    except RuntimeError as error:
        raise ProblemError(503, "stopping", str(error)) from None
    except ValueError as error:
        raise invalid("job", str(error)) from None
    except OSError as error:
        raise no_storage("the job", error) from None
    if new:
        services.registry.audit_log.note("job submitted", actor(request), job=job.id, kind=spec.kind, task=_about(spec))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return _view(services, job)


@router.get("", operation_id="listJobs", response_model=JobPage, responses=responses(422))
async def list_jobs(
    services: ServicesDep,
    after: Annotated[
        str | None, Query(pattern=r"^job_[0-9a-f]{24}$", description="`last_id` of the page before")
    ] = None,
    limit: Limit = 20,
    status: Annotated[Status | None, Query(description="only jobs of this status")] = None,
) -> Response:
    """List jobs, newest first."""
    return await services.reads.answer(lambda: _page(services, after, limit, status))


def _page(services: Services, after: str | None, limit: int, status: Status | None) -> JobPage:
    found = [_view(services, job) for job in services.jobs.list(after, limit + 1, status)]
    page = found[:limit]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    damaged = [Damaged(name=name, reason=reason) for name, reason in sorted(services.jobs.damaged.items())]
    return JobPage(data=page, first_id=first, last_id=last, has_more=len(found) > limit, damaged=damaged)


@router.get("/{job_id}", operation_id="getJob", responses=responses(404, 422))
def get_job(job_id: JobId, services: ServicesDep) -> JobView:
    """Get one job."""
    return _view(services, _find(services, job_id))


@router.post("/{job_id}/cancel", operation_id="cancelJob", responses=responses(404, 409, 422, 503))
def cancel_job(job_id: JobId, services: ServicesDep, request: Request) -> JobView:
    """Ask a job to stop; a running one is `cancelled` when its process has ended."""
    _find(services, job_id)
    try:
        cancelled = services.jobs.cancel(job_id)
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the job's end", error) from None
    services.registry.audit_log.note("job cancelled", actor(request), job=job_id)
    return _view(services, cancelled)


@router.post("/{job_id}/pause", operation_id="pauseJob", responses=responses(404, 409, 422, 503))
def pause_job(job_id: JobId, services: ServicesDep, request: Request) -> JobView:
    """Let a job wait. One that runs stops at its next checkpoint, and is `paused` when its process has ended.

    A loop waits at the end of its present phase; a canary and the watch after a promotion are judged on.
    """
    return _switch(services, job_id, request, services.jobs.pause, "job paused")


@router.post("/{job_id}/resume", operation_id="resumeJob", responses=responses(404, 409, 422, 503))
def resume_job(job_id: JobId, services: ServicesDep, request: Request) -> JobView:
    """Let a paused job continue from its last checkpoint: as if it had not stopped, where it computes on the CPU."""
    return _switch(services, job_id, request, services.jobs.resume, "job resumed")


@router.get(
    "/{job_id}/events",
    operation_id="streamJobEvents",
    response_class=StreamingResponse,
    responses=responses(404, 422) | EVENT_STREAM | {204: {"description": "The job has ended, no further events"}},
)
def stream_events(job_id: JobId, services: ServicesDep, last_event_id: LastEvent = 0) -> Response:
    """Follow a job as server-sent events: status, progress, metrics, result; ends with the job.

    After a break send `Last-Event-ID` to resume. 204 makes an EventSource stop reconnecting.
    """
    _find(services, job_id)
    ended = _is_over(services, job_id)
    if ended and not services.jobs.events(job_id, last_event_id).read():
        return Response(status_code=204)
    job = Followed(job_id, partial(services.jobs.events, job_id), partial(_is_quiet, services, job_id))
    body = stream(job, last_event_id, services.heartbeat_s, services.reads, services.feeds)
    return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def check_request(services: Services, spec: JobSpec) -> None:
    """Raise the problem of a job whose version, dataset, task or config will not do."""
    field, name = _starts_from(spec)
    try:
        if name is not None:
            services.registry.resolve(name)
        _check_dataset(services, spec)
        services.check_job(spec)
    except KeyError:
        raise invalid(field, f"'{name}' is neither a version nor an alias in the registry") from None
    except ValueError as error:
        raise invalid("job", str(error)) from None


def _check_dataset(services: Services, spec: JobSpec) -> None:
    """Raise ValueError for a dataset that is not there, or can't be read."""
    if isinstance(spec, FinetuneEpisodes | Sft | SuccessModel) and spec.dataset is not None:
        try:
            services.episodes.datasets.get(spec.dataset)
        except KeyError:
            raise ValueError(f"dataset '{spec.dataset}' is not there: GET /v1/datasets lists them") from None


def _starts_from(spec: JobSpec) -> tuple[str, str | None]:
    """Return which field of the spec names a version, and that name."""
    if isinstance(spec, ImportEpisodes | ExportEpisodes | SuccessModel):
        return "job", None
    if isinstance(spec, Evaluate):
        return "version", spec.version
    return ("job", PRODUCTION) if isinstance(spec, Loop) else ("base", spec.base)


def _about(spec: JobSpec) -> str:
    """Return what the audit log says a job is for."""
    return spec.path if isinstance(spec, ImportEpisodes | ExportEpisodes) else spec.task


def _switch(services: Services, job_id: str, request: Request, switch: Callable[[str], Job], event: str) -> JobView:
    _find(services, job_id)
    try:
        job = switch(job_id)
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the job's state", error) from None
    services.registry.audit_log.write(event, actor(request), job=job_id)
    return _view(services, job)


def _view(services: Services, job: Job) -> JobView:
    return JobView.of(job, services.jobs.signs(job))


def _find(services: Services, job_id: str) -> Job:
    try:
        return services.jobs.get(job_id)
    except (KeyError, DamagedJobError):
        if job_id in (damaged := services.jobs.damaged):
            raise ProblemError(404, "not-found", f"job '{job_id}' is damaged: {damaged[job_id]}") from None
        raise not_found("job", job_id) from None


def _is_quiet(services: Services, job_id: str) -> bool:
    """Whether a stream is to end: with the job, or with the server, whose clients come back."""
    return services.stopping.closing or _is_over(services, job_id)


def _is_over(services: Services, job_id: str) -> bool:
    try:
        return services.jobs.has_ended(job_id)
    except (KeyError, DamagedJobError):
        return True  # nothing more will be said of it
