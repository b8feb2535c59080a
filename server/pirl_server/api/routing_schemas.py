"""JSON schemas of /v1/routing."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from pirl_server.api.described import Described
from pirl_server.atomic_files import NAME_PATTERN

Version = Annotated[str, Field(pattern=NAME_PATTERN, examples=["3f9c1d20a7b4"])]
Share = Annotated[float, Field(ge=0, le=1, examples=[0.1])]
Robot = Annotated[str, Field(pattern=NAME_PATTERN, examples=["arm-1"])]


class _RoutingRequest(Described):
    model_config = ConfigDict(extra="forbid")

    version: Version
    """version in the registry"""
    reason: str = Field(default="", max_length=1000, description="written to the audit log")


class _TrialRequest(_RoutingRequest):
    force: bool = Field(
        default=False, strict=True, description="go past the promotion gate: takes scope admin and a reason"
    )


class PinRequest(_TrialRequest):
    """Which version the robot stays on."""


class CanaryRequest(_TrialRequest):
    """Who gets the candidate."""

    robots: list[Robot] = Field(default=[], max_length=1024)
    """ids of robots that get it"""
    share: Share = Field(
        strict=True, default=0.0, description="of all other robots, chosen by a hash of robot and version"
    )


class ShadowRequest(_RoutingRequest):
    """What is compared with production."""

    share: Share = Field(strict=True, default=1.0, description="of production's requests")


class CanaryView(Described):
    """The candidate, and who gets it."""

    version: str
    """the candidate"""
    robots: list[str]
    """that get it by their id"""
    share: float
    """of the other robots"""


class ShadowReportView(Described):
    """How far the shadow's chunks are from those that drove; distances by action, in the contract's units."""

    version: str
    """the shadow"""
    compared: int
    """observations that both versions were given"""
    skipped: int
    """observations that were skipped: robots come first"""
    rms: dict[str, float] = Field(examples=[{"joint1": 0.012}])
    """root mean square distance by action, in the contract's units"""
    worst: dict[str, float] = Field(examples=[{"joint1": 0.08}])
    """largest distance by action, in the contract's units"""
    infer_ms: float
    """mean milliseconds of the shadow's inference"""


class ShadowView(Described):
    """The shadow, and what was found; no report before its first comparison or where it could not be loaded."""

    version: str
    """the shadow"""
    share: float
    """of production's requests that are compared"""
    report: ShadowReportView | None
    """null before its first comparison"""


class RoutingView(Described):
    """Everything that decides which version answers a robot."""

    aliases: dict[str, str] = Field(examples=[{"production": "3f9c1d20a7b4"}])
    """alias -> version"""
    pins: dict[str, str] = Field(examples=[{"arm-1": "3f9c1d20a7b4"}])
    """robot id -> version"""
    canary: CanaryView | None
    """null: none"""
    shadow: ShadowView | None
    """null: none"""
