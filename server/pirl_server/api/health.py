"""Health checks: liveness, readiness, served version. These handlers never wait for a thread or the device."""

from __future__ import annotations

import os
from importlib.metadata import version

from fastapi import APIRouter

from pirl_server.api.dependencies import ServicesDep
from pirl_server.api.problems import ProblemError, responses
from pirl_server.api.schemas import Health, Info, Readiness

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="getHealth")
async def healthz() -> Health:
    """Answer as long as the process lives."""
    return Health(status="ok")


@router.get("/readyz", operation_id="getReadiness", responses=responses(503))
async def readyz(services: ServicesDep) -> Readiness:
    """Answer 200 while a policy is loaded and warm, its thread runs, its queue has room and the disk takes an episode.

    `degraded` names what does not work beside serving: damaged jobs, episodes and versions, a job queue that stands
    still.
    """
    if services.stopping.draining:
        raise ProblemError(503, "stopping", "the server is stopping: only connected robots are served")
    if services.engine.current is None:
        raise ProblemError(503, "not-ready", "no policy is loaded yet")
    if not services.engine.alive:
        raise ProblemError(503, "not-ready", "the model thread has ended: restart the server")
    if (waiting := services.engine.stats().waiting) >= services.engine.queue_size:
        raise ProblemError(503, "not-ready", f"{waiting} requests are waiting: the queue is full")
    root = services.registry.audit_log.path.parent
    if not os.access(root, os.W_OK):
        raise ProblemError(503, "not-ready", f"'{root}' can't be written to: episodes would be lost")
    if why := services.episodes.no_room():
        raise ProblemError(503, "not-ready", f"no episode is recorded: {why}")
    degraded = [*services.jobs.degraded, *services.registry.degraded, *services.episodes.degraded]
    return Readiness(status="degraded" if degraded else "ok", degraded=degraded)


@router.get("/v1/info", operation_id="getInfo")
async def info(services: ServicesDep) -> Info:
    """Say what is served and where robots connect."""
    policy = services.engine.current
    return Info(
        server_version=version("pirl"),
        policy_version=policy.version if policy else None,
        policy_name=policy.name if policy else None,
        contract_hash=policy.contract.hash if policy else None,
        robot=policy.contract.robot if policy else None,
        instructions=list(policy.instructions) if policy else [],
        grpc_port=services.grpc_port,
        stop_port=services.stop_port or None,
    )
