"""/v1/episodes/{episode_id}: images as JPEG, the episode as a video, and its steps' numbers to plot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import FileResponse

from pirl_server.api.dependencies import EpisodeId, Services, ServicesDep
from pirl_server.api.episode_schemas import EpisodeSteps
from pirl_server.api.episode_steps import sampled
from pirl_server.api.etags import matches
from pirl_server.api.problems import ProblemError, conflict, invalid, not_found, responses
from pirl_server.api.videos import MAX_PIXELS, MAX_STEPS
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.episodes.image_codecs import EncodedImages, encode_jpeg
from pirl_server.episodes.zarr_layout import EpisodeFile
from pirl_server.inspection.timeline import newest_calls

router = APIRouter(prefix="/v1/episodes/{episode_id}", tags=["episodes"])
JPEG_QUALITY, POINTS = 90, 500
"""of images that are stored as raw pixels; steps that are returned unless more are asked for"""
CACHED = {"Cache-Control": "private, max-age=31536000, immutable", "Cross-Origin-Resource-Policy": "same-origin"}
"""an episode never changes; and no page of another site shows its images"""
Camera = Annotated[str, Path(pattern=NAME_PATTERN, description="name of a camera of the contract")]
Step = Annotated[int, Path(ge=0, lt=2**31, description="position of the executed step")]
IfNoneMatch = Annotated[str | None, Header(max_length=1000, description="`ETag` that is there already: 304")]
Read = TypeVar("Read")
_FILE = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/frames/{camera}/{step}.jpg",
    operation_id="getEpisodeFrame",
    response_class=Response,
    responses=responses(404, 409, 422)
    | {200: {"content": {"image/jpeg": _FILE}, "description": "Image"}, 304: {"description": "It is there already"}},
)
async def frame(
    episode_id: EpisodeId, camera: Camera, step: Step, services: ServicesDep, if_none_match: IfNoneMatch = None
) -> Response:
    """Get what a camera showed last at a step: the stored JPEG, or one made of raw pixels."""
    call, image = await services.reads.aside(lambda: _read(services, episode_id, lambda it: _frame(it, camera, step)))
    etag = f'"{episode_id[:16]}-{call}"'
    headers = CACHED | {"ETag": etag}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(image, media_type="image/jpeg", headers=headers)


@router.get(
    "/video.mp4",
    operation_id="getEpisodeVideo",
    response_class=FileResponse,
    responses=responses(404, 409, 422, 501, 503)
    | {
        200: {"content": {"video/mp4": _FILE}, "description": "H.264, one frame per step"},
        206: {"content": {"video/mp4": _FILE}, "description": "The part that `Range` asks for"},
        416: {"description": "`Range` is beyond the end"},
    },
)
async def video(episode_id: EpisodeId, services: ServicesDep) -> Response:
    """Get the episode as a video: all cameras, the action on its ranges, who drove.

    The first request makes it, which takes seconds; `Range` works.
    """
    await services.reads.aside(lambda: _read(services, episode_id, _check_size))
    episode = services.episodes.root / services.episodes.summary(episode_id).path
    path = await services.videos.of(episode_id, episode)
    return FileResponse(path, media_type="video/mp4", headers=CACHED)


@router.get("/steps", operation_id="getEpisodeSteps", response_model=EpisodeSteps, responses=responses(404, 409, 422))
async def steps(
    episode_id: EpisodeId,
    services: ServicesDep,
    points: Annotated[int, Query(ge=2, le=5000, description="most steps that are returned")] = POINTS,
) -> Response:
    """Get state, executed action, the policy's action and who drove, at every n-th step, for plots."""
    return await services.reads.answer(lambda: _read(services, episode_id, lambda it: sampled(it, points)))


def _read(services: Services, episode_id: str, read: Callable[[EpisodeFile], Read]) -> Read:
    try:
        with services.episodes.parts(episode_id) as file:
            return read(file)
    except (KeyError, FileNotFoundError):
        if why := services.episodes.damaged.get(episode_id):
            raise ProblemError(404, "not-found", f"episode '{episode_id}' is damaged: {why}") from None
        raise not_found("episode", episode_id) from None
    except (ValueError, OSError) as error:
        raise conflict(f"episode '{episode_id}' can't be read: {error}") from None


def _frame(file: EpisodeFile, camera: str, step: int) -> tuple[int, bytes]:
    """Return which call's image it is, and the JPEG."""
    names = [each.name for each in file.info.contract.cameras]
    if camera not in names:
        raise ProblemError(404, "not-found", f"no camera '{camera}': there are {', '.join(names) or 'none'}")
    call_T, images = file.column("step/call"), file.images(camera)
    if step >= len(call_T):
        raise ProblemError(404, "not-found", f"no step {step}: the episode has {len(call_T)}")
    if not len(images):
        raise ProblemError(404, "not-found", "the policy was never called: the episode has no image")
    seen_T = newest_calls(call_T, file.column("call/capture_time_ns"), file.column("step/time_ns"))
    call = int(seen_T[step])
    if isinstance(images, EncodedImages):
        return call, images.files(call, call + 1)
    return call, encode_jpeg(np.asarray(images[call]), JPEG_QUALITY)


def _check_size(file: EpisodeFile) -> None:
    steps = len(file.column("step/call"))
    pixels = sum(int(np.prod(file.images(each.name).shape[:3])) for each in file.info.contract.cameras)
    if not steps:
        raise conflict("the episode has no step: nothing to draw")
    if steps > MAX_STEPS or pixels > MAX_PIXELS:
        raise invalid(
            "episode_id", f"an episode of {steps} steps is too long for a video from here: use pirl episodes draw"
        )
