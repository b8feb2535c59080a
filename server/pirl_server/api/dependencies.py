"""Services of the handlers, injected by FastAPI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from pirl_server.api.job_feed import JobFeeds
from pirl_server.api.reads import Reads
from pirl_server.api.robot_images import Thumbnails
from pirl_server.api.videos import Videos
from pirl_server.config.jobs import JobSpec
from pirl_server.episodes.store import EpisodeStore
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.registry.promotion import Promoter
from pirl_server.registry.success_models import SuccessModels
from pirl_server.registry.versions import Registry
from pirl_server.security.access_control import Caller
from pirl_server.security.permissions import ADMIN
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.engine import Engine
from pirl_server.shutdown import Stopping
from pirl_server.telemetry.metrics import Latencies, Metrics
from pirl_server.telemetry.robot_activity import RobotActivity
from pirl_server.watch.deciding import Deciding


@dataclass(frozen=True)
class Services:
    """The parts of the running server."""

    jobs: Supervisor
    registry: Registry
    promoter: Promoter
    episodes: EpisodeStore
    engine: Engine
    grpc_port: int
    check_job: Callable[[JobSpec], None]
    heartbeat_s: float
    attendance: RobotConnections
    deployment: Deployment
    metrics: Metrics
    latencies: Latencies
    stopping: Stopping
    activity: RobotActivity
    thumbnails: Thumbnails
    videos: Videos
    success_models: SuccessModels
    deciding: Deciding = field(default_factory=Deciding)
    stop_port: int = 0
    """of the port that takes stops only; 0: there is none"""
    gate_open: bool = False
    """no token is required"""
    rest_rate_hz: float | None = None
    """calls per second and token; None: no limit"""
    reads: Reads = field(default_factory=Reads)
    feeds: JobFeeds = field(default_factory=JobFeeds)


def _services(request: Request) -> Services:
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


MAX_PAGE = 100
ServicesDep = Annotated[Services, Depends(_services)]
JobId = Annotated[
    str, Path(pattern=r"^job_[0-9a-f]{24}$", description="id of the job", examples=["job_18ecf9e1c0ffee0000000000"])
]
EpisodeId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{32}$", description="id of the episode", examples=["3f9c1d20a7b43f9c1d20a7b43f9c1d20"])
]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="most entries of a page")]


def check_force_scope(request: Request, force: bool) -> None:
    """Raise DeniedError when `force` is set and the caller's scope is not admin."""
    if force:
        call = f"{request.method} {request.scope['route'].path} force"
        request.state.gate.check_scope(request.state.caller, call, frozenset({ADMIN}))


def actor(request: Request) -> str:
    """Return who asks, for the audit log."""
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller.name
