"""/v1/episodes: recorded robot episodes, their labels, and removing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from pirl_server.api.dependencies import EpisodeId, Limit, Services, ServicesDep, actor, check_force_scope
from pirl_server.api.episode_filters import SelectionDep, cursor_of, place_of
from pirl_server.api.episode_schemas import EpisodePage, EpisodeView, LabelRequest, LabelsView, LabelView
from pirl_server.api.etags import tag
from pirl_server.api.problems import (
    ProblemError,
    conflict,
    invalid,
    no_storage,
    not_found,
    precondition_failed,
    responses,
)
from pirl_server.api.schemas import Damaged
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.index_rows import EpisodeEntry
from pirl_server.episodes.retention import protection, remove
from pirl_server.episodes.store import OutdatedError

router = APIRouter(prefix="/v1/episodes", tags=["episodes"])
After = Annotated[
    str | None,
    Query(pattern=r"^[0-9a-f]{32}$", description="`last_id` of the page before; `cursor` also works once that is gone"),
]
IfMatch = Annotated[
    str | None, Header(max_length=100, description="`etag` that was seen: 412 when the episode has another by now")
]
CursorQuery = Annotated[str | None, Query(max_length=300, description="`next_cursor` of the page before")]


@router.get("", operation_id="listEpisodes", response_model=EpisodePage, responses=responses(404, 422, 503))
async def list_episodes(
    services: ServicesDep, selection: SelectionDep, after: After = None, cursor: CursorQuery = None, limit: Limit = 20
) -> Response:
    """List published episodes, newest first.

    Pages neither repeat nor skip an episode, whatever is published between them.
    """
    if after is not None and cursor is not None:
        raise invalid("cursor", "give either `after` or `cursor`")
    place = after if cursor is None else place_of(cursor)
    return await services.reads.answer(lambda: _page(services, selection, limit, place))


def _page(
    services: Services, selection: EpisodeSelection, limit: int, place: str | tuple[str, str] | None
) -> EpisodePage:
    try:
        found = services.episodes.page(selection, limit, place)
    except KeyError:
        raise not_found("episode", str(place)) from None
    except TimeoutError as error:
        raise ProblemError(503, "busy", str(error)) from None
    page = [_shown(services, each) for each in found.entries]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    damaged = [Damaged(name=name, reason=reason) for name, reason in sorted(services.episodes.damaged.items())]
    following = cursor_of(found.entries[-1].cursor) if found.more else None
    return EpisodePage(
        data=page, first_id=first, last_id=last, has_more=found.more, next_cursor=following, damaged=damaged
    )


@router.get("/{episode_id}", operation_id="getEpisode", responses=responses(404, 422))
def get_episode(episode_id: EpisodeId, services: ServicesDep, response: Response) -> EpisodeView:
    """Get one episode's summary. Its ETag changes with each label."""
    return _view(services, episode_id, response)


@router.get("/{episode_id}/labels", operation_id="listLabels", responses=responses(404, 422))
def list_labels(episode_id: EpisodeId, services: ServicesDep, response: Response) -> LabelsView:
    """List all labels of an episode, oldest first: the one it was published with, and those that followed."""
    with _found(services, episode_id):
        labels, entry = services.episodes.labels(episode_id), services.episodes.entry(episode_id)
    response.headers["ETag"] = f'"{entry.etag}"'
    return LabelsView(data=[LabelView.model_validate(vars(each)) for each in labels])


@router.post(
    "/{episode_id}/labels", status_code=201, operation_id="labelEpisode", responses=responses(404, 412, 422, 503)
)
def label_episode(
    episode_id: EpisodeId,
    body: LabelRequest,
    services: ServicesDep,
    request: Request,
    response: Response,
    if_match: IfMatch = None,
) -> EpisodeView:
    """Label a published episode, or take its label back with `success` null. The episode itself stays as it is."""
    with _found(services, episode_id):
        previous = services.episodes.label(
            episode_id, body.success, body.source, body.note, actor(request), tag(if_match)
        )
    _note(services, request, episode_id, body.success, previous, body.note)
    return _view(services, episode_id, response)


@router.post("/{episode_id}/labels/undo", operation_id="undoLabel", responses=responses(404, 409, 412, 422, 503))
def undo_label(
    episode_id: EpisodeId, services: ServicesDep, request: Request, response: Response, if_match: IfMatch = None
) -> EpisodeView:
    """Take the newest label back that was not undone: the one before it counts again."""
    with _found(services, episode_id):
        previous = services.episodes.summary(episode_id).success
        try:
            now = services.episodes.undo(episode_id, actor(request), tag(if_match))
        except OutdatedError:
            raise
        except ValueError as error:
            raise conflict(f"episode '{episode_id}': {error}") from None
    _note(services, request, episode_id, now.success, previous, "undo")
    return _view(services, episode_id, response)


@router.delete(
    "/{episode_id}", status_code=204, operation_id="deleteEpisode", responses=responses(404, 409, 412, 422, 503)
)
def delete_episode(
    episode_id: EpisodeId,
    services: ServicesDep,
    request: Request,
    force: Annotated[bool, Query(description="also what is protected; takes scope admin")] = False,
    reason: Annotated[str, Query(max_length=1000, description="written to the audit log")] = "",
    if_match: IfMatch = None,
) -> None:
    """Remove an episode for good.

    A labelled success, an episode of a dataset and one that a running job reads take `force`.
    """
    check_force_scope(request, force)
    episodes = services.episodes
    with _found(services, episode_id):
        entry = episodes.expect(episode_id, tag(if_match))
        removed, _ = remove(episodes, [entry], force)
    if not removed:
        why = protection(entry, episodes.datasets.ids(), episodes.leases.read()) or "being removed already"
        raise conflict(f"episode '{episode_id}' stays: it is {why}; remove it with force")
    services.registry.audit_log.note("episode removed", actor(request), episode=episode_id, reason=reason)


@contextmanager
def _found(services: Services, episode_id: str) -> Iterator[None]:
    try:
        yield
    except KeyError:
        if why := services.episodes.damaged.get(episode_id):
            raise ProblemError(404, "not-found", f"episode '{episode_id}' is damaged: {why}") from None
        raise not_found("episode", episode_id) from None
    except OutdatedError as error:
        raise precondition_failed(str(error)) from None
    except TimeoutError as error:
        raise ProblemError(503, "busy", str(error)) from None
    except OSError as error:
        raise no_storage("the change", error) from None


def _view(services: Services, episode_id: str, response: Response) -> EpisodeView:
    with _found(services, episode_id):
        entry = services.episodes.entry(episode_id)
    response.headers["ETag"] = f'"{entry.etag}"'
    return _shown(services, entry)


def _note(
    services: Services, request: Request, episode_id: str, success: bool | None, previous: bool | None, reason: str
) -> None:
    names = {True: "OUTCOME_SUCCESS", False: "OUTCOME_FAILURE", None: "OUTCOME_UNLABELED"}
    services.registry.audit_log.note(
        "label changed", actor(request), episode=episode_id, label=names[success], previous=names[previous],
        reason=reason,
    )  # fmt: skip


def _shown(services: Services, entry: EpisodeEntry) -> EpisodeView:
    """Show an episode; without its version while a blinded comparison runs on its robot."""
    ab = services.deciding.ab
    seen = entry if ab is None else replace(entry, summary=ab.shown(entry.summary))
    return EpisodeView.of(seen, services.episodes.proposals.get(entry.summary.id))
