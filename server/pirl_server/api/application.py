"""Puts the routes together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import Route, Router

from pirl_server.api import (
    ab_trials,
    audit,
    dashboard,
    datasets,
    episode_media,
    evaluations,
    health,
    job_files,
    job_metrics,
    job_plans,
    lineage,
    models,
    problems,
    promotion,
    proposals,
    reference,
    robots,
    routing,
    system,
)
from pirl_server.api import episodes as episode_routes
from pirl_server.api import jobs as job_routes
from pirl_server.api import metrics as metric_routes
from pirl_server.api.dependencies import Services
from pirl_server.api.middleware import Guard, Measured, check_row
from pirl_server.api.request_body import MAX_STOP_BODY, Bodies
from pirl_server.api.robot_images import Thumbnails
from pirl_server.api.stop_pages import DashboardOrigin
from pirl_server.api.videos import Videos
from pirl_server.config.jobs import JobSpec
from pirl_server.episodes.store import EpisodeStore
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.loop.robot_episodes import robot_evidence
from pirl_server.paths import CACHE, SUCCESS_MODELS
from pirl_server.registry.gate_rule import USUAL_RULE, GateRule
from pirl_server.registry.promotion import Promoter
from pirl_server.registry.success_models import SuccessModels
from pirl_server.registry.versions import Registry
from pirl_server.security.access_control import AccessControl
from pirl_server.security.rate_limiter import Limiter
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.engine import Engine
from pirl_server.shutdown import Stopping
from pirl_server.telemetry.metrics import Latencies, Metrics
from pirl_server.telemetry.robot_activity import RobotActivity
from pirl_server.watch.deciding import Deciding

TAGS = [
    {"name": "jobs", "description": "Training and evaluation jobs: create, follow, cancel"},
    {"name": "episodes", "description": "Recorded robot episodes and their labels"},
    {"name": "datasets", "description": "Lists of episodes that are frozen under a name"},
    {"name": "models", "description": "Model versions: production alias, promotion, rollback"},
    {"name": "routing", "description": "Which version serves which robot: pins, canary, shadow"},
    {"name": "robots", "description": "Connected robots and their emergency stop (software, not safety-rated)"},
    {"name": "health", "description": "Liveness, readiness, served versions, metrics"},
]
PARTS = (
    job_routes, job_plans, job_files, job_metrics, episode_routes, episode_media, proposals, datasets, models,
    promotion, lineage, evaluations, routing, ab_trials, robots, system, audit, health, metric_routes,
    reference, dashboard,
)  # fmt: skip
"""modules with routes, in the order of the document"""


def create_api(
    *,
    jobs: Supervisor,
    registry: Registry,
    episodes: EpisodeStore,
    engine: Engine,
    check_job: Callable[[JobSpec], None],
    grpc_port: int,
    attendance: RobotConnections,
    gate: AccessControl,
    deployment: Deployment,
    metrics: Metrics,
    latencies: Latencies,
    rule: GateRule = USUAL_RULE,
    watch: Callable[[Promoter], Deciding] = lambda promoter: Deciding(),
    limiter: Limiter | None = None,
    heartbeat_s: float = 15.0,
    stopping: Stopping | None = None,
    activity: RobotActivity | None = None,
    stop_port: int = 0,
) -> FastAPI:
    """Build the REST application; `check_job(spec)` raises ValueError with one line where task or config is not known.

    Base and version are checked against the registry here. `stop_port` is where `create_stop_api` listens, 0: nowhere.
    `gate` lets callers in, `limiter` says how often (None: at will), `watch` makes what decides about versions itself.
    """
    app = _document()
    routers = [each.router for each in PARTS]
    _protect(app, _routes(app.router, *routers), gate, limiter)
    app.add_middleware(Measured, metrics=metrics)
    root, see_robots = episodes.root.parent, partial(robot_evidence, registry, episodes)
    stopping = stopping or Stopping()
    promoter = Promoter(registry, deployment.activate, rule, see_robots, deployment.roll_back)
    app.state.services = Services(
        jobs=jobs,
        registry=registry,
        promoter=promoter,
        episodes=episodes,
        engine=engine,
        grpc_port=grpc_port,
        check_job=check_job,
        heartbeat_s=heartbeat_s,
        attendance=attendance,
        deployment=deployment,
        metrics=metrics,
        latencies=latencies,
        stopping=stopping,
        deciding=watch(promoter),
        activity=activity or RobotActivity(lambda episode_id: None),
        thumbnails=Thumbnails(attendance.newest),
        stop_port=stop_port,
        videos=Videos(root / CACHE / "videos", lambda: stopping.closing),
        success_models=SuccessModels(root / SUCCESS_MODELS),
        gate_open=gate.open,
        rest_rate_hz=None if limiter is None else limiter.rate_hz,
    )
    problems.install(app)
    for router in routers:
        app.include_router(router)
    return app


def _document() -> FastAPI:
    return FastAPI(
        title="pirl",
        version=version("pirl"),
        summary="Jobs, episodes, models and robots of a policy server",
        responses=problems.responses(400, 401, 403, 408, 413, 429, 500),
        dependencies=[Depends(check_row)],
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
    )


def create_stop_api(api: FastAPI, rest_port: int = 0) -> FastAPI:
    """Build the application that takes nothing but emergency stops, and says that it lives.

    Handlers, scopes and audit log are those of `api`; what differs is that nothing else can be in the way. The
    dashboard of `rest_port` may call it too, 0: no page may.
    """
    router = APIRouter()
    router.add_api_route("/v1/robots/{robot_id}/emergency-stop", robots.stop_robot, methods=["POST"], status_code=202)
    router.add_api_route("/v1/emergency-stop", robots.stop_all, methods=["POST"], status_code=202)
    router.add_api_route("/healthz", health.healthz)
    app = FastAPI(openapi_url=None, dependencies=[Depends(check_row)])
    app.add_middleware(Bodies, limit=MAX_STOP_BODY)
    app.state.routes = routes = _routes(router)
    app.add_middleware(Guard, gate=api.state.gate, routes=routes)
    app.add_middleware(DashboardOrigin, rest_port=rest_port)
    app.state.services = api.state.services
    problems.install(app)
    app.include_router(router)
    return app


def _protect(app: FastAPI, routes: list[Route], gate: AccessControl, limiter: Limiter | None) -> None:
    """Let the access control look at each call before its body is read."""
    app.state.routes, app.state.gate = routes, gate
    app.add_middleware(Bodies)
    app.add_middleware(Guard, gate=gate, routes=routes, limiter=limiter)


def _routes(*routers: Router) -> list[Route]:
    return [route for router in routers for route in router.routes if isinstance(route, Route)]
