"""JSON schemas of robots and their emergency stop."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from pirl_server.api.described import Described
from pirl_server.telemetry.robot_activity import Safety


class LatencyView(Described):
    """Of the newest results, from a request's arrival to its reply, within the server."""

    p50_ms: float
    """half of the results took no longer"""
    p99_ms: float
    """99 of 100 took no longer"""
    results: int
    """how many these are, 500 at most"""


class StepsView(Described):
    """The newest steps that the robot has reported, 1,000 at most."""

    count: int
    """how many these are; 0: it has reported none, which a robot does within an episode only"""
    altered: int
    """of them, those whose action was altered in any way"""
    alterations: dict[str, int] = Field(examples=[{"limit": 12, "blended": 4}])
    """kind -> steps that have it: limit, jump, workspace, stale, watchdog, emergency_stop and others"""
    last: str | None
    """ISO 8601, UTC: when the newest one was reported; null: never"""


class CameraView(Described):
    """A camera of the newest observation: GET /v1/robots/{robot_id}/images/{camera}.jpg shows it."""

    name: str
    """of the contract"""
    width: int
    """pixels, as the policy sees it"""
    height: int
    """pixels, as the policy sees it"""
    received: str
    """ISO 8601, UTC"""


class RobotView(Described):
    """One robot as the server knows it. Times are the server's wall clock."""

    id: str = Field(examples=["arm-1"])
    """as the robot names itself"""
    connected: bool = Field(description="the robot has a session and is notified of a stop")
    reachable: bool = Field(description="a stop from here has an effect: it has a session or gets no more chunks")
    address: str = Field(examples=["ipv4:10.0.0.7:51324"])
    """of its last request"""
    policy_version: str | None = Field(description="policy version of its last result")
    since: str = Field(examples=["2026-01-31T08:00:00.000+00:00"])
    """ISO 8601, UTC: when it connected"""
    last_seen: str
    """ISO 8601, UTC: its last request"""
    latency_ms: float | None = Field(description="of its last result, from arrival to reply, within the server")
    latency: LatencyView | None = None
    """of its newest results; null: none yet"""
    instruction: str | None = None
    """of its newest request; null: none yet"""
    cameras: list[CameraView] = Field(default=[], description="of its newest request; empty: none is kept")
    control_source: Literal["policy", "human", "hold"] | None = None
    """who drove its newest reported step; null: it has reported none"""
    steps: StepsView | None = None
    """what its governor altered lately"""
    safety: Safety = "unknown"
    """by its newest reported steps. stopped: the software stop is latched; stop_sent: it was notified and has reported
    nothing since; holding: it plays no chunk; limited: its governor altered some of the last 20 steps; clear: none of
    these; unknown: it has reported no step"""
    stop_sent: str | None = None
    """ISO 8601, UTC: when the last stop was sent from here; null: never. It says nothing of the arm"""


class RobotList(Described):
    """The robots seen since the server started, by id."""

    data: list[RobotView]
    """the robots"""


class StopRequest(Described):
    """Reason; shown at the robot and logged."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "hand in the workspace"}]})

    reason: str = Field(default="", max_length=1000)
    """shown at the robot, and written to the audit log"""


class Stopped(Described):
    """Which robots were notified."""

    notified: list[str] = Field(description="ids of the notified robots", examples=[["arm-1"]])
    told: list[str] = Field(description="old name of `notified`", deprecated=True, examples=[["arm-1"]])
    note: str = (
        "Software, not safety-rated: these robots were notified, which does not mean that they stand still."
        " Use the emergency stop at the robot. It is cleared there, never from here."
    )
    """limits of a stop over the network"""
