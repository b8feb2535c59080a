"""`Idempotency-Key`: a client that got no answer sends its request again, and gets the same job."""

from __future__ import annotations

import threading
import time
from typing import Annotated

from fastapi import Header, Request, Response

from pirl_server.api.dependencies import Services
from pirl_server.api.problems import ProblemError
from pirl_server.config.jobs import JobSpec
from pirl_server.jobs.job import Job, KeyInUseError
from pirl_server.security.access_control import Caller

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="any text of yours; the same one with the same body returns the job that is there",
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ),
]
REPLAYED = "Idempotency-Replayed"
_ONE_AT_A_TIME = threading.Lock()


def submit_once(services: Services, spec: JobSpec, key: str | None, request: Request, response: Response) -> Job:
    """Submit a job, or return that of the key, which is the caller's own. Raises as `Supervisor.submit`."""
    if key is None:
        return services.jobs.submit(spec)
    caller = request.state.caller
    assert isinstance(caller, Caller)
    try:
        with _ONE_AT_A_TIME:  # else the job of a request at the same moment would seem to be new to both
            before_ns = time.time_ns()
            job = services.jobs.submit(spec, key=f"{caller.token}/{key}")
    except KeyInUseError:
        detail = "this Idempotency-Key came with another body before: use a new key"
        raise ProblemError(422, "idempotency-key-reused", detail) from None
    if int(job.id[4:20], 16) < before_ns:  # ids rise with time
        response.headers[REPLAYED] = "true"
    return job
