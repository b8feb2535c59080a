"""/v1/models/{version}/gate and /v1/models/watch: what stands before a promotion, and what follows one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from pirl_server.api.dependencies import ServicesDep
from pirl_server.api.gate_schemas import GateEvidence, GateView
from pirl_server.api.problems import conflict, no_storage, not_found, responses
from pirl_server.api.watch_schemas import WatchView
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.registry.promotion import PRODUCTION
from pirl_server.watch.monitor import WatchReport
from pirl_server.watch.signs import Signs
from pirl_server.watch.state import WatchState

router = APIRouter(prefix="/v1/models", tags=["models"])
Version = Annotated[str, Path(pattern=NAME_PATTERN, description="version in the registry", examples=["3f9c1d20a7b4"])]


@router.get("/watch", operation_id="getWatch")
def get_watch(services: ServicesDep) -> WatchView:
    """Show the watch after the last promotion: what was seen of the version, and whether it was taken back."""
    off = WatchReport(False, WatchState(), Signs())
    monitor = services.deciding.monitor
    return WatchView.of(off if monitor is None else monitor.report())


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
