"""/v1/evaluations: results of versions on fixed lists of initial states."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from pirl_server.api.dependencies import Limit, Services, ServicesDep
from pirl_server.api.evaluation_schemas import EvaluationDetail, EvaluationPage
from pirl_server.api.problems import conflict, not_found, responses
from pirl_server.api.schemas import Damaged
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.registry.evaluation import Evaluation

router = APIRouter(prefix="/v1/evaluations", tags=["models"])
EvaluationId = Annotated[str, Path(pattern=NAME_PATTERN, description="`id` of the evaluation")]


@router.get("", operation_id="listEvaluations", response_model=EvaluationPage, responses=responses(422))
async def list_evaluations(
    services: ServicesDep,
    version: Annotated[str | None, Query(pattern=NAME_PATTERN, description="only of this version")] = None,
    task: Annotated[str | None, Query(max_length=200, description="only of this task")] = None,
    cursor: Annotated[str | None, Query(pattern=NAME_PATTERN, description="`next_cursor` of the page before")] = None,
    limit: Limit = 20,
) -> Response:
    """List evaluations, by version and list of initial states."""
    return await services.reads.answer(lambda: _page(services, version, task, cursor, limit))


@router.get("/{evaluation_id}", operation_id="getEvaluation", responses=responses(404, 409, 422))
def get_evaluation(evaluation_id: EvaluationId, services: ServicesDep) -> EvaluationDetail:
    """Get one evaluation with the outcome of each initial state."""
    try:
        return EvaluationDetail.named(evaluation_id, services.registry.evaluations.get(evaluation_id))
    except KeyError:
        raise not_found("evaluation", evaluation_id) from None
    except ValueError as error:
        raise conflict(str(error)) from None


def _page(services: Services, version: str | None, task: str | None, cursor: str | None, limit: int) -> EvaluationPage:
    evaluations = services.registry.evaluations
    found, damaged = list[tuple[str, Evaluation]](), list[Damaged]()
    for name in evaluations.names():
        if (cursor is not None and name <= cursor) or (version is not None and not name.startswith(version)):
            continue
        try:
            each = evaluations.get(name)
        except KeyError:
            continue  # removed meanwhile
        except ValueError as error:
            damaged.append(Damaged(name=name, reason=str(error)))
            continue
        if version in (None, each.version) and task in (None, each.task):
            found.append((name, each))
        if len(found) > limit:
            break
    page = [EvaluationDetail.named(name, each) for name, each in found[:limit]]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    more = len(found) > limit
    return EvaluationPage(
        data=page, first_id=first, last_id=last, has_more=more, next_cursor=last if more else None, damaged=damaged
    )
