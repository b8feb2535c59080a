"""Puts the routes together."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI

from pirl_server.api import episodes as episode_routes
from pirl_server.api import health, models, problems
from pirl_server.api import jobs as job_routes
from pirl_server.api.services import Services
from pirl_server.episodes import EpisodeStore
from pirl_server.jobs import JobSpec, Supervisor
from pirl_server.registry import Promoter, Registry
from pirl_server.serving import Engine


def create_api(
    *,
    jobs: Supervisor,
    registry: Registry,
    episodes: EpisodeStore,
    engine: Engine,
    activate: Callable[[str], None],
    check_job: Callable[[JobSpec], None],
    grpc_port: int,
    heartbeat_s: float = 15.0,
) -> FastAPI:
    """Build the REST application.

    `activate(version)` loads a version and swaps it into the engine, or raises. `check_job(spec)` raises ValueError
    with one line when task or config is not known; base and version are checked against the registry here.
    """
    app = FastAPI(
        title="pirl",
        version=version("pirl"),
        summary="Jobs, episodes and models of a policy server",
        responses=problems.responses(500),
    )
    promoter = Promoter(registry, activate)
    app.state.services = Services(jobs, registry, promoter, episodes, engine, grpc_port, check_job, heartbeat_s)
    problems.install(app)
    for routes in (job_routes, episode_routes, models, health):
        app.include_router(routes.router)
    return app
