"""`Idempotency-Key`: a client that got no answer sends its request again, and gets the same job."""

from __future__ import annotations

from collections.abc import Callable
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


def submit_once(
    services: Services,
    spec: JobSpec,
    check: Callable[[], None],
    key: str | None,
    request: Request,
    response: Response,
) -> tuple[Job, bool]:
    """Submit a job, or return that of the key, which is the caller's own; say whether it is new.

    `check` raises the problem of a new job that will not do. One that is there is returned as the first time, also when
    the version that it starts from was deleted meanwhile. Raises as `Supervisor.submit`.
    """
    if key is None:
        check()
        return services.jobs.submit(spec), True
    caller = request.state.caller
    assert isinstance(caller, Caller)
    own = f"{caller.token}/{key}"
    try:
        job, new = services.jobs.of_key(spec, own), False
        if job is None:
            check()
            job, new = services.jobs.submit_once(spec, own)
    except KeyInUseError:
        detail = "this Idempotency-Key came with another body before: use a new key"
        raise ProblemError(422, "idempotency-key-reused", detail) from None
    if not new:
        response.headers[REPLAYED] = "true"
    return job, new
