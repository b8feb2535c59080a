"""When a job runs and how often it is tried: fields that every kind of job has."""

from __future__ import annotations

from typing import Annotated

from pydantic.dataclasses import dataclass

from pirl_server.config.fields import CHECKED, about, number, text

JOB_ID = r"^job_[0-9a-f]{24}$"


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class Scheduled:
    """What the queue goes by."""

    priority: Annotated[
        int, number("of two jobs that wait, the higher one starts first", "rank", ge=-100, le=100)
    ] = 0  # fmt: skip
    after: Annotated[
        tuple[Annotated[str, text("id of a job", JOB_ID)], ...],
        about("jobs that must have succeeded before this one starts; when one ends otherwise, this one fails"),
    ] = ()
    retries: Annotated[
        int,
        number(
            "attempts that may end in a crash one after the other without a new checkpoint, before the job fails at the"
            " next; errors of the request fail at once", "attempts", ge=0, le=1000,
        ),
    ] = 2  # fmt: skip
    stall_s: Annotated[
        float | None,
        number(
            "without an event of its process or another checkpoint, after which a running job is stopped and tried"
            " again as after a crash; longer than its start and its longest step. null: never. Of a loop: nothing",
            "s", ge=1,
        ),
    ] = None  # fmt: skip
