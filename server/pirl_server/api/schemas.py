"""JSON schemas of the API."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.jobs import JobSpec
from pirl_server.episodes.summary import EpisodeSummary
from pirl_server.jobs.job import Job, Status
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.promotion_gate import Comparison, GateResult


class JobView(BaseModel):
    """One job: what was asked with every default filled in, and where it stands."""

    id: str
    spec: JobSpec
    status: Status
    created: str
    started: str | None
    finished: str | None
    error: str | None = Field(description="reason of failure or cancellation, one line")
    result: dict[str, Any] | None = Field(description="what came out; of a loop: where it stands")
    parent: str | None = Field(description="the loop that submitted it; null: a user did")

    @classmethod
    def of(cls, job: Job) -> JobView:
        """Leave out what only the supervisor needs."""
        return cls.model_validate(job, from_attributes=True)


class Damaged(BaseModel):
    """A job, episode or version that is kept, but whose files can't be read."""

    name: str
    reason: str = Field(description="which file, what is wrong with it, and where it was moved")


class JobPage(BaseModel):
    """Jobs, newest first; ask for the next page with `after=last_id`."""

    data: list[JobView]
    first_id: str | None
    last_id: str | None
    has_more: bool
    damaged: list[Damaged] = Field(default=[], description="damaged jobs found since the server started")


class EpisodeView(BaseModel):
    """One published episode; `path` is its Zarr group, relative to the store."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    robot_id: str
    created: str
    instruction: str
    success: bool | None
    label_source: str
    end_reason: str
    sampler: str
    contract_hash: str
    policy_versions: list[str]
    calls: int
    steps: int
    path: str
    dry_run: bool

    @classmethod
    def of(cls, summary: EpisodeSummary) -> EpisodeView:
        """Show a summary as it is."""
        return cls.model_validate(summary)


class EpisodePage(BaseModel):
    """Episodes, newest first; ask for the next page with `after=last_id`."""

    data: list[EpisodeView]
    first_id: str | None
    last_id: str | None
    has_more: bool
    damaged: list[Damaged] = Field(default=[], description="damaged episodes found since the server started")


class EvaluationView(BaseModel):
    """Success on one fixed list, with its Wilson 95 % interval."""

    task: str
    list_hash: str
    episodes: int
    successes: int
    success_rate: float
    interval: tuple[float, float]
    created: str

    @classmethod
    def of(cls, evaluation: Evaluation) -> EvaluationView:
        """Show rate and interval beside the counts."""
        return cls.model_validate(evaluation, from_attributes=True)


class ModelView(BaseModel):
    """One version with the aliases that mean it."""

    version: str
    created: str
    parent: str | None
    job: str | None
    contract_hash: str
    aliases: list[str]
    evaluations: list[EvaluationView]


class ModelList(BaseModel):
    """All versions, newest first, and the aliases."""

    data: list[ModelView]
    aliases: dict[str, str]
    damaged: list[Damaged] = Field(default=[], description="version folders that can't be read")


class PromoteRequest(BaseModel):
    """Which version to serve; `force` goes past the gate and needs a reason."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[str, Field(pattern=NAME_PATTERN)]
    force: bool = False
    reason: str = Field(default="", max_length=1000)


class RollbackRequest(BaseModel):
    """Why to go back."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=1000)


class ComparisonView(BaseModel):
    """Both versions on one common list."""

    incumbent: EvaluationView
    candidate: EvaluationView

    @classmethod
    def of(cls, pair: Comparison) -> ComparisonView:
        """Show both sides."""
        return cls(incumbent=EvaluationView.of(pair.incumbent), candidate=EvaluationView.of(pair.candidate))


class Promoted(BaseModel):
    """What is served now and what the gate saw; `overridden` lists the rejections that `force` went past."""

    version: str
    comparisons: list[ComparisonView] = []
    overridden: list[str] = []

    @classmethod
    def of(cls, version: str, result: GateResult) -> Promoted:
        """Show a gate result."""
        pairs = [ComparisonView.of(pair) for pair in result.comparisons]
        return cls(version=version, comparisons=pairs, overridden=list(result.refusals))


class RobotView(BaseModel):
    """One robot as the server knows it. Times are the server's wall clock."""

    id: str = Field(examples=["arm-1"])
    connected: bool = Field(description="the robot has a session and is notified of a stop")
    reachable: bool = Field(description="a stop from here has an effect: it has a session or gets no more chunks")
    address: str = Field(examples=["ipv4:10.0.0.7:51324"])
    policy_version: str | None = Field(description="policy version of its last result")
    since: str = Field(examples=["2026-01-31T08:00:00.000+00:00"])
    last_seen: str
    latency_ms: float | None = Field(description="of its last result, from arrival to reply, within the server")


class RobotList(BaseModel):
    """The robots seen since the server started, by id."""

    data: list[RobotView]


class StopRequest(BaseModel):
    """Reason; shown at the robot and logged."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "hand in the workspace"}]})

    reason: str = Field(default="", max_length=1000)


class Stopped(BaseModel):
    """Which robots were notified."""

    notified: list[str] = Field(description="ids of the notified robots", examples=[["arm-1"]])
    told: list[str] = Field(description="old name of `notified`", deprecated=True, examples=[["arm-1"]])
    note: str = (
        "Software, not safety-rated: these robots were notified, which does not mean that they stand still."
        " Use the emergency stop at the robot. It is cleared there, never from here."
    )


class Health(BaseModel):
    """`ok`, or why not."""

    status: str


class Readiness(BaseModel):
    """Robots are served; `degraded` when something else is not well."""

    status: str = Field(description="ok or degraded")
    degraded: list[str] = Field(description="reasons of degradation, one line each")


class Info(BaseModel):
    """What runs here; no policy: no version."""

    server_version: str
    policy_version: str | None
    policy_name: str | None
    contract_hash: str | None
    robot: str | None
    instructions: list[str]
    grpc_port: int
