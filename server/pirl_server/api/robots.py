"""/v1/robots: connected robots, what they do and see, and their emergency stop.

There is no call that clears a stop. The person who clears it must see the arm, so that is done at the robot; a call
over the network could let an arm move beside a person whom its sender cannot see.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Path, Request, Response

from pirl_contract import ControlSource
from pirl_server.api.dependencies import Services, ServicesDep, actor
from pirl_server.api.problems import ProblemError, not_found, responses
from pirl_server.api.robot_schemas import (
    CameraView,
    LatencyView,
    RobotList,
    RobotView,
    StepsView,
    Stopped,
    StopRequest,
)
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.serving.connections import RobotConnection, Shown

router = APIRouter(prefix="/v1", tags=["robots"])
StopBody = Annotated[StopRequest | None, Body()]
AUDIT_WAIT_S = 0.2
"""for the audit log, before the answer goes out without it"""
RobotId = Annotated[str, Path(pattern=NAME_PATTERN, description="id of the robot", examples=["arm-1"])]
CameraName = Annotated[str, Path(max_length=100, description="camera of the contract", examples=["wrist"])]
IfNoneMatch = Annotated[
    str | None, Header(max_length=100, description="`ETag` of the image that was seen: 304, if it is")
]
SOURCES: dict[ControlSource, Literal["policy", "human", "hold"]] = {
    ControlSource.POLICY: "policy", ControlSource.HUMAN: "human", ControlSource.HOLD: "hold",
}  # fmt: skip
IMAGE = {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "JPEG"}}
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Still the image that was seen"}}


@router.get("/robots", operation_id="listRobots", response_model=RobotList)
async def list_robots(services: ServicesDep) -> Response:
    """List the robots seen since the server started; a stop has an effect on those that are reachable."""
    return await services.reads.answer(
        lambda: RobotList(data=[_view(services, presence) for presence in services.attendance.list()])
    )


@router.get(
    "/robots/{robot_id}/images/{camera}.jpg",
    operation_id="getRobotImage",
    response_class=Response,
    responses=responses(404, 422) | IMAGE | UNCHANGED,
)
async def robot_image(
    robot_id: RobotId, camera: CameraName, services: ServicesDep, if_none_match: IfNoneMatch = None
) -> Response:
    """Get the newest image of a camera as the policy sees it, its longer side cut down to 480 pixels.

    Another one is made five times a second at most. It is kept in memory only, of the 64 robots that asked last.
    """
    try:
        found = await services.reads.aside(lambda: services.thumbnails.of(robot_id, camera))
    except KeyError:
        raise not_found(f"image of robot '{robot_id}' by camera", camera) from None
    headers = {"ETag": f'"{found.number}"', "Cache-Control": "no-store"}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type="image/jpeg", headers=headers)


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
    for robot in notified:
        services.activity.stop_sent(robot)
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
    does, shown = services.activity.of(presence.robot_id), services.attendance.newest.of(presence.robot_id)
    observation, took = shown.observation if shown else None, does.latency_ms
    return RobotView(
        id=presence.robot_id,
        connected=presence.sessions > 0,
        reachable=presence.reachable,
        address=presence.address,
        policy_version=presence.policy_version or None,
        since=_iso(presence.since),
        last_seen=_iso(presence.last_seen),
        latency_ms=services.latencies.of(presence.robot_id),
        latency=LatencyView(p50_ms=took.p50, p99_ms=took.p99, results=took.results) if took else None,
        instruction=observation.instruction if observation else None,
        cameras=_cameras(shown) if shown else [],
        control_source=None if does.source is None else SOURCES[does.source],
        steps=StepsView(
            count=does.steps,
            altered=does.altered_steps,
            alterations=dict(does.alterations),
            last=None if does.last_step is None else _iso(does.last_step),
        ),
        safety=does.safety,
        stop_sent=None if does.stop_sent is None else _iso(does.stop_sent),
    )


def _cameras(shown: Shown) -> list[CameraView]:
    received = _iso(shown.at)
    return [
        CameraView(name=name, width=image.shape[1], height=image.shape[0], received=received)
        for name, image in sorted(shown.observation.images.items())
    ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
