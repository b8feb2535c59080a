"""/v1/robots: connected robots and their emergency stop.

There is no call that clears a stop. The person who clears it must see the arm, so that is done at the robot; a call
over the network could let an arm move beside a person whom its sender cannot see.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Body, Path, Request

from pirl_server.api.dependencies import Services, ServicesDep, actor
from pirl_server.api.problems import ProblemError, responses
from pirl_server.api.schemas import RobotList, RobotView, Stopped, StopRequest
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.serving.connections import RobotConnection

router = APIRouter(prefix="/v1", tags=["robots"])
StopBody = Annotated[StopRequest | None, Body()]
AUDIT_WAIT_S = 0.2
"""for the audit log, before the answer goes out without it"""
RobotId = Annotated[str, Path(pattern=NAME_PATTERN, description="id of the robot", examples=["arm-1"])]


@router.get("/robots", operation_id="listRobots")
async def list_robots(services: ServicesDep) -> RobotList:
    """List the robots seen since the server started; a stop has an effect on those that are reachable."""
    return RobotList(data=[_view(services, presence) for presence in services.attendance.list()])


@router.post(
    "/robots/{robot_id}/emergency-stop",
    status_code=202,
    operation_id="stopRobot",
    responses=responses(404, 422),
)
async def stop_robot(robot_id: RobotId, services: ServicesDep, request: Request, body: StopBody = None) -> Stopped:
    """Notify one robot to latch its software stop. Not safety-rated: the message may not arrive.

    A robot without a session gets no more chunks until its program restarts.

    202 means that it was notified, not that it stands still. The stop is cleared at the robot, never from here.
    """
    return await _stop(services, request, body, [robot_id])


@router.post("/emergency-stop", status_code=202, operation_id="stopAllRobots", responses=responses(404, 422))
async def stop_all(services: ServicesDep, request: Request, body: StopBody = None) -> Stopped:
    """Notify every connected robot to latch its software stop. Not safety-rated: a message may not arrive."""
    return await _stop(
        services, request, body, [each.robot_id for each in services.attendance.list() if each.reachable]
    )


async def _stop(services: Services, request: Request, body: StopRequest | None, robots: list[str]) -> Stopped:
    who, reason = actor(request), body.reason if body else ""
    notified = [robot for robot in robots if services.attendance.emergency_stop(robot, reason, who)]
    names = ",".join(notified or robots)
    # a disk that hangs must not delay the reply, nor the next stop
    result = "notified" if notified else "not connected"
    note = partial(services.registry.audit_log.note, "emergency stop", who, result, robots=names, reason=reason)
    writing = asyncio.get_running_loop().run_in_executor(None, note)
    await asyncio.wait([writing], timeout=AUDIT_WAIT_S)
    if not notified:
        raise ProblemError(404, "not-connected", f"no connected robot to notify: {names or 'no robot'} has a session")
    return Stopped(notified=notified, told=notified)


def _view(services: Services, presence: RobotConnection) -> RobotView:
    return RobotView(
        id=presence.robot_id,
        connected=presence.sessions > 0,
        reachable=presence.reachable,
        address=presence.address,
        policy_version=presence.policy_version or None,
        since=_iso(presence.since),
        last_seen=_iso(presence.last_seen),
        latency_ms=services.latencies.of(presence.robot_id),
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
