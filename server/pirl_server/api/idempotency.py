"""`Idempotency-Key`: a client that got no answer sends its request again, and gets the same job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import Header, Request, Response

from pirl_server.api.dependencies import Services
from pirl_server.api.problems import ProblemError, conflict
from pirl_server.config.jobs import JobSpec
from pirl_server.jobs.job import Job
from pirl_server.jobs.submission_keys import KeyReusedError, SubmissionKeys
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.security.access_control import Caller

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="any text of yours; the same one with the same body returns the job that is there, for a week",
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ),
]
REPLAYED = "Idempotency-Replayed"
LOOK_BACK = 200
"""newest jobs among which that of a submission is looked for that a crash cut short"""


def submit_once(services: Services, spec: JobSpec, key: str | None, request: Request, response: Response) -> Job:
    """Submit a job, or return that of the key, which is the caller's own. Raises as `Supervisor.submit`."""
    if key is None:
        return services.jobs.submit(spec)
    caller = request.state.caller
    assert isinstance(caller, Caller)
    try:
        job, replayed = services.submissions.submit(f"{caller.token}/{key}", spec, lambda: services.jobs.submit(spec))
    except KeyReusedError as error:
        raise ProblemError(422, "idempotency-key-reused", str(error)) from None
    except (KeyError, ValueError) as error:
        raise conflict(f"the job of this Idempotency-Key can't be read: {error}") from None
    if replayed:
        response.headers[REPLAYED] = "true"
    return job


def submission_keys(jobs: Supervisor, folder: Path) -> SubmissionKeys:
    """Make the keys of a supervisor's jobs."""

    def since(at: float) -> list[Job]:
        newest = jobs.list(limit=LOOK_BACK)
        return [job for job in reversed(newest) if int(job.id[4:20], 16) / 1e9 >= at]

    return SubmissionKeys(folder, jobs.get, since)
