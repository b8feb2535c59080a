"""JSON schemas of /v1/routing."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pirl_server.atomic_files import NAME_PATTERN

Version = Annotated[str, Field(pattern=NAME_PATTERN, examples=["3f9c1d20a7b4"])]
Share = Annotated[float, Field(ge=0, le=1, examples=[0.1])]
Robot = Annotated[str, Field(pattern=NAME_PATTERN, examples=["arm-1"])]


class _RoutingRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Version
    reason: str = Field(default="", max_length=1000, description="written to the audit log")


class _TrialRequest(_RoutingRequest):
    force: bool = Field(default=False, description="go past the promotion gate: takes scope admin and a reason")


class PinRequest(_TrialRequest):
    """Which version the robot stays on."""


class CanaryRequest(_TrialRequest):
    """Who gets the candidate."""

    robots: list[Robot] = Field(default=[], max_length=1024)
    share: Share = Field(default=0.0, description="of all other robots, chosen by a hash of robot and version")


class ShadowRequest(_RoutingRequest):
    """What is compared with production."""

    share: Share = Field(default=1.0, description="of production's requests")


class CanaryView(BaseModel):
    """The candidate, and who gets it."""

    version: str
    robots: list[str]
    share: float


class ShadowReportView(BaseModel):
    """How far the shadow's chunks are from those that drove; distances by action, in the contract's units."""

    version: str
    compared: int
    skipped: int
    rms: dict[str, float] = Field(examples=[{"joint1": 0.012}])
    worst: dict[str, float] = Field(examples=[{"joint1": 0.08}])
    infer_ms: float


class ShadowView(BaseModel):
    """The shadow, and what was found; no report before its first comparison or where it could not be loaded."""

    version: str
    share: float
    report: ShadowReportView | None


class RoutingView(BaseModel):
    """Everything that decides which version answers a robot."""

    aliases: dict[str, str] = Field(examples=[{"production": "3f9c1d20a7b4"}])
    pins: dict[str, str] = Field(examples=[{"arm-1": "3f9c1d20a7b4"}])
    canary: CanaryView | None
    shadow: ShadowView | None
