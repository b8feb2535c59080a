"""/v1/models: versions, aliases, evaluations; promote and roll back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from pirl_server.api.dependencies import Services, ServicesDep, actor, check_force_scope
from pirl_server.api.etags import tag
from pirl_server.api.pages import AfterName, OptionalLimit, page_of
from pirl_server.api.problems import (
    conflict,
    gate_rejection,
    no_storage,
    not_found,
    precondition_failed,
    responses,
)
from pirl_server.api.schemas import (
    Damaged,
    EvaluationView,
    ModelList,
    ModelView,
    OfflineView,
    Promoted,
    PromoteRequest,
    RollbackRequest,
)
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.offline_evidence import OfflineEvidence
from pirl_server.registry.promotion import PRODUCTION, OutdatedAliasError, PromotionRefusedError
from pirl_server.registry.versions import ModelVersion, Registry

router = APIRouter(prefix="/v1/models", tags=["models"])
IfMatch = Annotated[
    str | None, Header(max_length=100, description="ETag of the list that was seen: 412 when production moved since")
]


@router.get("", operation_id="listModels", response_model=ModelList, responses=responses(404, 409, 422))
async def list_models(services: ServicesDep, after: AfterName = None, limit: OptionalLimit = None) -> Response:
    """List all versions, newest first, with their aliases and evaluations.

    The ETag is that of the alias `production`, for `If-Match` of a promotion or a rollback.
    """
    try:
        state = await services.reads.aside(lambda: services.registry.state(PRODUCTION))  # first: never the newer one
        response = await services.reads.answer(lambda: _list(services, after, limit))
    except ValueError as error:
        raise conflict(str(error)) from None
    response.headers["ETag"] = f'"{state}"'
    return response


def _list(services: Services, after: str | None, limit: int | None) -> ModelList:
    registry = services.registry
    aliases, models, damaged = registry.aliases(), list[ModelView](), list[Damaged]()
    found = {model.version: model for model in registry.versions()}
    page = page_of(list(found), "version", after, limit)
    for model in map(found.__getitem__, page.names):
        view, why = view_of(registry, model, aliases)
        models.append(view)
        damaged += [Damaged(name=model.version, reason=why)] if why else []
    damaged += [Damaged(name=name, reason=reason) for name, reason in sorted(registry.damaged.items())]
    return ModelList.model_validate({"data": models, "aliases": aliases, "damaged": damaged} | page.ids)


def view_of(registry: Registry, model: ModelVersion, aliases: dict[str, str]) -> tuple[ModelView, str]:
    """Show a version; and say what is known of it but can't be read, empty: nothing."""
    evaluations, offline, why = list[Evaluation](), None, ""
    try:
        evaluations = registry.evaluations.of(model.version)
        offline = registry.offline.of(model.version)
    except ValueError as error:
        why = str(error)
    return _view(evaluations, offline, aliases, model), why


@router.post("/promote", operation_id="promoteModel", responses=responses(404, 409, 412, 422, 503))
def promote(body: PromoteRequest, services: ServicesDep, request: Request, if_match: IfMatch = None) -> Promoted:
    """Serve a version: it must pass the gate, then it is swapped into the running server without a dropped request.

    To go past the gate with `force` takes a token of scope admin.
    """
    check_force_scope(request, body.force)
    try:
        result = services.promoter.promote(body.version, actor(request), body.reason, body.force, tag(if_match))
    except KeyError:
        raise not_found("version", body.version) from None
    except OutdatedAliasError as error:
        raise precondition_failed(str(error)) from None
    except PromotionRefusedError as refused:
        raise gate_rejection(body.version, refused) from None
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the promotion", error) from None
    return Promoted.of(body.version, result)


@router.post("/rollback", operation_id="rollbackModel", responses=responses(409, 412, 422, 503))
def rollback(body: RollbackRequest, services: ServicesDep, request: Request, if_match: IfMatch = None) -> Promoted:
    """Serve the version that was in production before this one."""
    try:
        return Promoted(version=services.promoter.rollback(actor(request), body.reason, tag(if_match)))
    except OutdatedAliasError as error:
        raise precondition_failed(str(error)) from None
    except KeyError as error:
        raise conflict(f"version {error.args[0]}, the previous production version, no longer exists") from None
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the rollback", error) from None


def _view(
    evaluations: list[Evaluation], offline: OfflineEvidence | None, aliases: dict[str, str], model: ModelVersion
) -> ModelView:
    return ModelView(
        version=model.version,
        created=model.created,
        parent=model.parent,
        job=model.job,
        contract_hash=model.contract.hash,
        aliases=sorted(alias for alias, version in aliases.items() if version == model.version),
        evaluations=[EvaluationView.of(found) for found in evaluations],
        offline=None if offline is None else OfflineView.of(offline),
    )
