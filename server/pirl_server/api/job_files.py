"""/v1/jobs/{job_id}: its output by position, its checkpoints, and the files that it left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse

from pirl_server.api.dependencies import JobId, Services, ServicesDep
from pirl_server.api.job_file_schemas import ArtefactList, CheckpointList, JobLog
from pirl_server.api.problems import no_storage, not_found, responses
from pirl_server.jobs import artefacts, job_log

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])
LOG_BYTES, MAX_LOG_BYTES = 64 * 1024, 256 * 1024
Name = Annotated[str, PathParameter(max_length=500, description="`name` of the file in the list; slashes as they are")]
_ANY_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.get("/log", operation_id="getJobLog", response_model=JobLog, responses=responses(404, 422, 503))
async def log(
    job_id: JobId,
    services: ServicesDep,
    offset: Annotated[
        int, Query(ge=-(2**53), le=2**53, description="first byte, of all that the job wrote; negative: from the end")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LOG_BYTES, description="most bytes")] = LOG_BYTES,
) -> Response:
    """Read stdout and stderr of a job. Continue with `offset=next_offset`; an empty text: there is no more now.

    Positions stay valid when the server moves a full log away: what is no longer kept is passed over, and `offset` says
    where the text begins.
    """
    return await services.reads.answer(lambda: _log(services, job_id, offset, limit))


@router.get("/checkpoints", operation_id="listJobCheckpoints", responses=responses(404, 422))
def checkpoints(job_id: JobId, services: ServicesDep) -> CheckpointList:
    """List what the job has saved: states to continue from, and the result to serve."""
    return CheckpointList.of(artefacts.checkpoints(_directory(services, job_id)))


@router.get("/artefacts", operation_id="listJobArtefacts", responses=responses(404, 422))
def list_artefacts(job_id: JobId, services: ServicesDep) -> ArtefactList:
    """List the files in the job's folder, checkpoints included."""
    return ArtefactList.of(artefacts.artefacts(_directory(services, job_id)))


@router.get(
    "/artefacts/{name:path}",
    operation_id="getJobArtefact",
    response_class=FileResponse,
    responses=responses(404, 422)
    | {
        200: {"content": _ANY_FILE, "description": "The file"},
        206: {"content": _ANY_FILE, "description": "The part that `Range` asks for"},
        416: {"description": "`Range` is beyond the end"},
    },
)
def artefact(job_id: JobId, name: Name, services: ServicesDep) -> Response:
    """Download a file of a job; `Range` and `If-Range` work. A file that is still written may have grown since."""
    try:
        path = artefacts.path_of(_directory(services, job_id), name)
    except KeyError:
        raise not_found("artefact", name) from None
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
    return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=headers)


def _directory(services: Services, job_id: str) -> Path:
    try:
        return services.jobs.hosted.directory(job_id)
    except KeyError:
        raise not_found("job", job_id) from None


def _log(services: Services, job_id: str, offset: int, limit: int) -> JobLog:
    directory = _directory(services, job_id)
    try:
        part = job_log.read(directory, offset, limit)
    except OSError as error:
        raise no_storage("the lock of the log", error) from None
    data = part.data[: _whole(part.data)]
    return JobLog(
        offset=part.offset,
        next_offset=part.offset + len(data),
        first=part.first,
        size=part.size,
        text=data.decode(errors="replace"),
    )


def _whole(data: bytes) -> int:
    """Return how many bytes end with a whole character of UTF-8; all where that is none."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4 if byte >> 3 == 0b11110 else 1
            return len(data) - back if needed > back and len(data) > back else len(data)
    return len(data)
