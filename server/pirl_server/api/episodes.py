"""/v1/episodes: recorded robot episodes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from pirl_server.api.dependencies import EpisodeId, Limit, Services, ServicesDep
from pirl_server.api.problems import ProblemError, not_found, responses
from pirl_server.api.schemas import Damaged, EpisodePage, EpisodeView
from pirl_server.atomic_files import NAME_PATTERN

router = APIRouter(prefix="/v1/episodes", tags=["episodes"])


@router.get("", operation_id="listEpisodes", response_model=EpisodePage, responses=responses(404, 422, 503))
async def list_episodes(
    services: ServicesDep,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$", description="`last_id` of the page before")] = None,
    limit: Limit = 20,
    robot: Annotated[str | None, Query(pattern=NAME_PATTERN, description="only of this robot")] = None,
    success: Annotated[bool | None, Query(description="only with this label")] = None,
) -> Response:
    """List published episodes, newest first."""
    return await services.reads.answer(lambda: _page(services, after, limit, robot, success))


def _page(services: Services, after: str | None, limit: int, robot: str | None, success: bool | None) -> EpisodePage:
    try:
        found, more = services.episodes.page(after, limit, robot, success)
    except KeyError:
        raise not_found("episode", after or "") from None
    except TimeoutError as error:
        raise ProblemError(503, "busy", str(error)) from None
    page = [EpisodeView.of(summary) for summary in found]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    damaged = [Damaged(name=name, reason=reason) for name, reason in sorted(services.episodes.damaged.items())]
    return EpisodePage(data=page, first_id=first, last_id=last, has_more=more, damaged=damaged)


@router.get("/{episode_id}", operation_id="getEpisode", responses=responses(404, 422))
def get_episode(episode_id: EpisodeId, services: ServicesDep) -> EpisodeView:
    """Get one episode's summary."""
    try:
        return EpisodeView.of(services.episodes.summary(episode_id))
    except KeyError:
        if why := services.episodes.damaged.get(episode_id):
            raise ProblemError(404, "not-found", f"episode '{episode_id}' is damaged: {why}") from None
        raise not_found("episode", episode_id) from None
