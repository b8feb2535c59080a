"""JSON schemas of the API."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from pirl_server.api.described import Described
from pirl_server.api.gate_schemas import GateEvidence
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.jobs import JobSpec
from pirl_server.jobs.heartbeat import Signs
from pirl_server.jobs.job import Job, Status
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.gate_lists import Comparison
from pirl_server.registry.offline_evidence import OfflineEvidence
from pirl_server.registry.promotion_gate import GateResult

Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
"""two numbers; as a list, since tools read OpenAPI's form of a tuple in different ways"""


class JobView(Described):
    """One job: what was asked with every default filled in, and where it stands."""

    id: str
    """job_ and 24 hexadecimal digits; ids rise with time"""
    spec: JobSpec
    """as requested, with every default filled in"""
    status: Status
    """queued, running, perhaps paused and queued again, then one of succeeded, failed, cancelled"""
    created: str
    """ISO 8601, UTC"""
    started: str | None
    """ISO 8601, UTC; null before"""
    finished: str | None
    """ISO 8601, UTC; null before"""
    error: str | None = Field(description="reason of failure or cancellation, one line")
    result: dict[str, Any] | None
    """plain JSON of the job's kind: version, success rate; null before. Of a loop: where it stands"""
    parent: str | None
    """the loop that submitted it, with round and phase; null: a user did"""
    attempt: int
    """how often it was started; each attempt continues from the last checkpoint"""
    causes: list[str]
    """why earlier attempts ended, oldest first, the last 20"""
    device: str | None
    """that the present or last attempt was given; null before, and of a loop"""
    heartbeat_at: str | None = None
    """when its runner last looked at its living process, ISO 8601, UTC, every 5 s; null unless one runs it"""
    last_progress_at: str | None = None
    """when it last reported something or made a checkpoint, ISO 8601, UTC; null unless it runs"""

    @classmethod
    def of(cls, job: Job, alive: Signs) -> JobView:
        """Leave out what only the supervisor needs."""
        found = cls.model_validate(job, from_attributes=True)
        return found.model_copy(update={"heartbeat_at": alive.heartbeat, "last_progress_at": alive.progress})


class Damaged(Described):
    """A job, episode or version that is kept, but whose files can't be read."""

    name: str
    """id of the job or episode, or name of the version's folder"""
    reason: str = Field(description="which file, what is wrong with it, and where it was moved")


class JobPage(Described):
    """Jobs, newest first; ask for the next page with `after=last_id`."""

    data: list[JobView]
    """the jobs of this page"""
    first_id: str | None
    """of this page; null for an empty one"""
    last_id: str | None
    """of this page: `after` of the next one; null for an empty one"""
    has_more: bool
    """whether there is a next page"""
    damaged: list[Damaged] = Field(default=[], description="damaged jobs found since the server started")


class EvaluationView(Described):
    """Success on one fixed list, with its Wilson 95 % interval."""

    task: str
    """task id"""
    list_hash: str
    """identity of the fixed list of initial states"""
    episodes: int
    """evaluated initial states"""
    successes: int
    """of them"""
    success_rate: float
    """successes over episodes"""
    interval: Pair
    """Wilson 95 % interval of the success rate"""
    created: str
    """ISO 8601, UTC"""
    list: int | None = Field(default=None, description="number of the list of initial states; null: not recorded")
    first: int = Field(default=0, description="position of the first state in that list")
    purpose: str = Field(default="gate", description="gate, or tuning: then no promotion rests on these states")
    setup: dict[str, str] = Field(
        default={},
        description="simulator, code and device with versions: evaluations of different setups are not compared",
        examples=[{"simulator": "mani-skill 3.0.1, sapien 3.0.0", "pirl": "0.1.0+3f9c1d20", "device": "cpu float32"}],
    )

    @classmethod
    def of(cls, evaluation: Evaluation) -> EvaluationView:
        """Show rate and interval beside the counts."""
        own = {key: getattr(evaluation, key) for key in EvaluationView.model_fields if hasattr(evaluation, key)}
        return EvaluationView(**(own | {"interval": list(evaluation.interval)}))


class OfflineView(Described):
    """The version against the one that it was learnt from, on robot episodes that were not learnt."""

    base: str
    """version that it was learnt from"""
    held_out: int
    """episodes that were not learnt"""
    action_error_ratio: float | None
    """mean distance of drawn chunks from what was executed, over the base's; null: no such episode was good"""
    episodes: list[Pair]
    """error of base and version on each of them"""
    unit: str | None
    """of the errors"""
    gain: float | None
    """change of the success rate by exploring episodes, to first order; null: not of PPO, or too few of them"""
    gain_lower: float | None
    """one-sided 95 % bound of it"""
    said: str
    """all of it as text, with the limits"""
    refusals: list[str]
    """why the gate rejects the version for it; empty: it does not"""

    @classmethod
    def of(cls, found: OfflineEvidence) -> OfflineView:
        """Show what was measured."""
        error, gain = found.action_error, found.gain
        return cls(
            base=found.base,
            held_out=found.held_out,
            action_error_ratio=None if error is None else error.ratio,
            episodes=[] if error is None else [list(pair) for pair in zip(error.base, error.result)],
            unit=None if error is None else error.unit,
            gain=None if gain is None else gain.mean,
            gain_lower=None if gain is None else gain.lower,
            said=str(found),
            refusals=list(found.refusals),
        )


class ModelView(Described):
    """One version with the aliases that mean it."""

    version: str
    """hash of the checkpoint's content"""
    created: str
    """ISO 8601, UTC"""
    parent: str | None
    """version that it was trained from"""
    job: str | None
    """job that trained it"""
    contract_hash: str
    """contract of the robot that it is for"""
    aliases: list[str]
    """that mean this version"""
    evaluations: list[EvaluationView]
    """results on fixed lists"""
    offline: OfflineView | None = None
    """what held-out episodes say of it; null: none were held out"""


class ModelList(Described):
    """All versions, newest first, and the aliases."""

    data: list[ModelView]
    """the versions"""
    aliases: dict[str, str]
    """alias -> version"""
    first_id: str | None = None
    """of this page; null for an empty one"""
    last_id: str | None = None
    """of this page: `after` of the next one; null for an empty one"""
    has_more: bool = False
    """whether there is a next page"""
    damaged: list[Damaged] = Field(default=[], description="version folders that can't be read")


class PromoteRequest(Described):
    """Which version to serve; `force` goes past the gate and needs a reason."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[str, Field(pattern=NAME_PATTERN)]
    """version to serve"""
    force: Annotated[bool, Field(strict=True)] = False
    """go past the promotion gate: takes scope admin and a reason"""
    reason: str = Field(default="", max_length=1000)
    """written to the audit log"""


class RollbackRequest(Described):
    """Why to go back."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=1000)
    """written to the audit log"""


class ComparisonView(Described):
    """Both versions on one common list."""

    incumbent: EvaluationView
    """of the version in production"""
    candidate: EvaluationView
    """of the version to promote"""

    @classmethod
    def of(cls, pair: Comparison) -> ComparisonView:
        """Show both sides."""
        return cls(incumbent=EvaluationView.of(pair.incumbent), candidate=EvaluationView.of(pair.candidate))


class Promoted(Described):
    """What is served now and what the gate saw; `overridden` lists the rejections that `force` went past."""

    version: str
    """that is in production now"""
    comparisons: list[ComparisonView] = Field(default=[])
    """both versions on each common list"""
    overridden: list[str] = Field(default=[])
    """rejections of the gate that `force` went past"""
    evidence: GateEvidence | None = None
    """the gate's tests; null after a rollback"""

    @classmethod
    def of(cls, version: str, result: GateResult) -> Promoted:
        """Show a gate result."""
        pairs = [ComparisonView.of(pair) for pair in result.comparisons]
        return cls(
            version=version, comparisons=pairs, overridden=list(result.refusals), evidence=GateEvidence.of(result)
        )


class Health(Described):
    """`ok`, or why not."""

    status: str
    """ok"""


class Readiness(Described):
    """Robots are served; `degraded` when something else is not well."""

    status: str = Field(description="ok or degraded")
    degraded: list[str] = Field(description="reasons of degradation, one line each")


class Info(Described):
    """What runs here; no policy: no version."""

    server_version: str
    """version of this software"""
    policy_version: str | None
    """version in production"""
    policy_name: str | None
    """name on its card"""
    contract_hash: str | None
    """contract of the robot that it is for"""
    robot: str | None
    """robot model of that contract"""
    instructions: list[str]
    """that it was trained on"""
    grpc_port: int
    """port that robots connect to"""
    stop_port: int | None = None
    """port that takes emergency stops only; null: there is none"""
