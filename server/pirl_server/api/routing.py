"""/v1/routing: which version serves which robot besides production: canary, shadow, pins.

Production itself moves by /v1/models/promote and /v1/models/rollback only. A version that has not passed the gate may
get a small canary here (`registry.trial_limit`); a larger one, or a pin, takes `force`, a reason and scope admin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from pirl_server.api.dependencies import Services, ServicesDep, actor, check_force_scope
from pirl_server.api.problems import conflict, gate_rejection, no_storage, not_found, responses
from pirl_server.api.routing_schemas import (
    CanaryRequest,
    CanaryView,
    PinRequest,
    RoutingView,
    ShadowReportView,
    ShadowRequest,
    ShadowView,
)
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.registry.promotion import PromotionRefusedError
from pirl_server.registry.routing_rules import CANDIDATE, SHADOW

router = APIRouter(prefix="/v1/routing", tags=["routing"])
RobotId = Annotated[str, Path(pattern=NAME_PATTERN, description="id of the robot", examples=["arm-1"])]
Reason = Annotated[str, Query(max_length=1000, description="written to the audit log")]


@router.get("", operation_id="getRouting")
def get_routing(services: ServicesDep) -> RoutingView:
    """Show aliases, pins, the canary, and the shadow with what its comparison has found so far."""
    return _view(services)


@router.put("/canary", operation_id="setCanary", responses=responses(404, 409, 422, 503))
def set_canary(body: CanaryRequest, services: ServicesDep, request: Request) -> RoutingView:
    """Let the listed robots, and a share of the others, get the candidate from their next episode on.

    More robots than the server's canary limit take a version that passes the promotion gate, or `force`.
    """
    check_force_scope(request, body.force)
    with _in_words(body.version):
        services.deployment.canary(body.version, body.robots, body.share, actor(request), body.reason, body.force)
    return _view(services)


@router.delete("/canary", operation_id="recallCanary", responses=responses(409, 422, 503))
def recall_canary(services: ServicesDep, request: Request, reason: Reason = "") -> RoutingView:
    """End the canary at once: its robots get production with their next chunk, within an episode too."""
    with _in_words(CANDIDATE):
        services.deployment.recall(actor(request), reason)
    return _view(services)


@router.put("/shadow", operation_id="setShadow", responses=responses(404, 409, 422, 503))
def set_shadow(body: ShadowRequest, services: ServicesDep, request: Request) -> RoutingView:
    """Let a version draw, while no robot waits, on a share of what production answers: compared, never driven."""
    with _in_words(body.version):
        services.deployment.watch(body.version, body.share, actor(request), body.reason)
    return _view(services)


@router.delete("/shadow", operation_id="endShadow", responses=responses(409, 422, 503))
def end_shadow(services: ServicesDep, request: Request, reason: Reason = "") -> RoutingView:
    """End the comparison."""
    with _in_words(SHADOW):
        services.deployment.unwatch(actor(request), reason)
    return _view(services)


@router.put("/pins/{robot_id}", operation_id="pinRobot", responses=responses(404, 409, 422, 503))
def pin_robot(robot_id: RobotId, body: PinRequest, services: ServicesDep, request: Request) -> RoutingView:
    """Keep a robot on a version from its next episode on, whatever is promoted.

    The version must have been in production, or pass the promotion gate, or be pinned with `force`.
    """
    check_force_scope(request, body.force)
    with _in_words(body.version):
        services.deployment.pin(robot_id, body.version, actor(request), body.reason, body.force)
    return _view(services)


@router.delete("/pins/{robot_id}", operation_id="unpinRobot", responses=responses(404, 409, 422, 503))
def unpin_robot(robot_id: RobotId, services: ServicesDep, request: Request, reason: Reason = "") -> RoutingView:
    """Let a robot follow production again, from its next episode on."""
    with _in_words(robot_id, "pin of robot"):
        services.deployment.unpin(robot_id, actor(request), reason)
    return _view(services)


@contextmanager
def _in_words(name: str, kind: str = "version") -> Iterator[None]:
    try:
        yield
    except KeyError:
        raise not_found(kind, name) from None
    except PromotionRefusedError as refused:
        raise gate_rejection(name, refused) from None
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the routing", error) from None


def _view(services: Services) -> RoutingView:
    aliases, routes, report = (
        services.registry.aliases(),
        services.deployment.routes,
        services.deployment.shadow.report(),
    )
    canary = shadow = None
    if CANDIDATE in aliases:
        kept = routes.for_candidate(aliases[CANDIDATE])
        canary = CanaryView(version=aliases[CANDIDATE], robots=list(kept.canary_robots), share=kept.canary_share)
    if SHADOW in aliases:
        found = ShadowReportView(**asdict(report)) if report and report.version == aliases[SHADOW] else None
        shadow = ShadowView(version=aliases[SHADOW], share=routes.shadow_share, report=found)
    return RoutingView(aliases=aliases, pins=dict(routes.pins), canary=canary, shadow=shadow)
