"""Is the process up, is a policy served, which one. These handlers never wait for a thread or the device."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter

from pirl_server.api.problems import ProblemError, responses
from pirl_server.api.services import World
from pirl_server.api.views import Health, Info

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="getHealth")
async def healthz() -> Health:
    """Answer as long as the process lives."""
    return Health(status="ok")


@router.get("/readyz", operation_id="getReadiness", responses=responses(503))
async def readyz(world: World) -> Health:
    """Answer 200 once a policy is loaded and warm."""
    if world.engine.current is None:
        raise ProblemError(503, "not-ready", "no policy is loaded yet")
    return Health(status="ok")


@router.get("/v1/info", operation_id="getInfo")
async def info(world: World) -> Info:
    """Say what is served and where robots connect."""
    policy = world.engine.current
    return Info(
        server_version=version("pirl"),
        policy_version=policy.version if policy else None,
        policy_name=policy.name if policy else None,
        contract_hash=policy.contract.hash if policy else None,
        robot=policy.contract.robot if policy else None,
        instructions=list(policy.instructions) if policy else [],
        grpc_port=world.grpc_port,
    )
