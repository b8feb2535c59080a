"""/v1/models: versions, aliases, evaluations; promote and roll back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from pirl_server.api.dependencies import Services, ServicesDep, actor, check_force_scope
from pirl_server.api.gate_schemas import GateEvidence, GateView
from pirl_server.api.problems import conflict, gate_rejection, no_storage, not_found, responses
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
from pirl_server.api.watch_schemas import WatchView
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.offline_evidence import OfflineEvidence
from pirl_server.registry.promotion import PRODUCTION, PromotionRefusedError
from pirl_server.registry.versions import ModelVersion
from pirl_server.watch.monitor import WatchReport
from pirl_server.watch.signs import Signs
from pirl_server.watch.state import WatchState

router = APIRouter(prefix="/v1/models", tags=["models"])
Version = Annotated[str, Path(pattern=NAME_PATTERN, description="version in the registry", examples=["3f9c1d20a7b4"])]


@router.get("", operation_id="listModels", response_model=ModelList)
async def list_models(services: ServicesDep) -> Response:
    """List all versions, newest first, with their aliases and evaluations."""
    return await services.reads.answer(lambda: _list(services))


def _list(services: Services) -> ModelList:
    registry = services.registry
    aliases, models, damaged = registry.aliases(), [], []
    for model in registry.versions():
        evaluations, offline = list[Evaluation](), None
        try:
            evaluations = registry.evaluations.of(model.version)
            offline = registry.offline.of(model.version)
        except ValueError as error:
            damaged.append(Damaged(name=model.version, reason=str(error)))
        models.append(_view(evaluations, offline, aliases, model))
    damaged += [Damaged(name=name, reason=reason) for name, reason in sorted(registry.damaged.items())]
    return ModelList(data=models, aliases=aliases, damaged=damaged)


@router.get("/watch", operation_id="getWatch")
def get_watch(services: ServicesDep) -> WatchView:
    """Show the watch after the last promotion: what was seen of the version, and whether it was taken back."""
    off = WatchReport(False, WatchState(), Signs())
    return WatchView.of(off if services.monitor is None else services.monitor.report())


@router.get("/{version}/gate", operation_id="getGate", responses=responses(404, 409, 422, 503))
def get_gate(version: Version, services: ServicesDep) -> GateView:
    """Say whether the promotion gate lets a version through now, by what evidence, and what is missing."""
    try:
        result = services.promoter.check(version)
    except KeyError:
        raise not_found("version", version) from None
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the evidence", error) from None
    rule = services.promoter.rule
    return GateView(
        version=version,
        incumbent=services.registry.aliases().get(PRODUCTION),
        allowed=result.allowed,
        refusals=list(result.refusals),
        margin=rule.margin,
        robot_margin=rule.robot_margin,
        alpha=rule.alpha,
        evidence=GateEvidence.of(result),
    )


@router.post("/promote", operation_id="promoteModel", responses=responses(404, 409, 422, 503))
def promote(body: PromoteRequest, services: ServicesDep, request: Request) -> Promoted:
    """Serve a version: it must pass the gate, then it is swapped into the running server without a dropped request.

    To go past the gate with `force` takes a token of scope admin.
    """
    check_force_scope(request, body.force)
    try:
        result = services.promoter.promote(body.version, actor(request), body.reason, body.force)
    except KeyError:
        raise not_found("version", body.version) from None
    except PromotionRefusedError as refused:
        raise gate_rejection(body.version, refused) from None
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the promotion", error) from None
    return Promoted.of(body.version, result)


@router.post("/rollback", operation_id="rollbackModel", responses=responses(409, 422, 503))
def rollback(body: RollbackRequest, services: ServicesDep, request: Request) -> Promoted:
    """Serve the version that was in production before this one."""
    try:
        return Promoted(version=services.promoter.rollback(actor(request), body.reason))
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
