"""JSON schemas of /v1/ab-trials."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from pirl_server.api.described import Described
from pirl_server.api.routing_schemas import Robot, Version
from pirl_server.api.schemas import Damaged
from pirl_server.registry.ab_test import AbResult
from pirl_server.registry.ab_trials import AbTrial


class AbRequest(Described):
    """What is compared, where, and when it is decided."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"first": "3f9c1d20a7b4", "second": "a1b2c3d4e5f6", "robots": ["arm-1"], "reason": "new data"}]
        },
    )

    first: Version
    """version in the registry"""
    second: Version
    """another version in the registry"""
    robots: list[Robot] = Field(min_length=1, max_length=1024)
    """ids of robots that get both versions in turn"""
    max_pairs: int = Field(default=150, ge=5, le=1000, strict=True, description="pairs of episodes after which it ends")
    margin: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.15
    """difference of success rates within which they count as equal"""
    alpha: Annotated[float, Field(gt=0, le=0.2, allow_inf_nan=False)] = 0.05
    """highest probability of a wrong decision, however often it is looked at"""
    reason: str = Field(default="", max_length=1000)
    """written to the audit log"""
    force: bool = Field(default=False, strict=True, description="go past the canary limit: takes scope admin, a reason")


class AbStop(Described):
    """Why a trial is ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "the robot is needed"}]})

    reason: str = Field(default="", max_length=1000)
    """written to the audit log"""


class AbResultView(Described):
    """What the pairs said."""

    verdict: str
    """first, second, equal; empty: undecided"""
    pairs: int
    """pairs of episodes up to the verdict"""
    first: int
    """successes of the first version in these"""
    second: int
    """successes of the second version in these"""
    p_first: float
    """bound of the probability of so much evidence that the first is better, if it is not"""
    p_second: float
    """the same for the second"""
    p_equal: float
    """the same for a difference below the margin, if it is not"""

    @classmethod
    def of(cls, result: AbResult) -> AbResultView:
        """Show a result."""
        return cls.model_validate(result, from_attributes=True)


class AbEpisodeView(Described):
    """An episode that counted; shown when the trial is over."""

    id: str
    """of the episode"""
    robot_id: str
    """which robot"""
    version: str
    """that drove it"""
    success: bool
    """its outcome"""


class AbTrialView(Described):
    """A trial; while it runs neither the result nor the version of any episode is shown."""

    id: str
    """ab_ and 16 hexadecimal digits"""
    status: str
    """running, decided, undecided (max_pairs reached) or stopped"""
    first: str
    """version"""
    second: str
    """version"""
    robots: list[str]
    """that get both in turn"""
    max_pairs: int
    """pairs after which it ends"""
    margin: float
    """difference of success rates within which they count as equal"""
    alpha: float
    """highest probability of a wrong decision"""
    created: str
    """ISO 8601, UTC"""
    actor: str
    """who began it"""
    reason: str
    """why"""
    ended: str
    """ISO 8601, UTC; empty: it runs"""
    note: str
    """why it has ended"""
    labelled: int
    """episodes with an outcome so far"""
    pairs: int
    """complete pairs so far"""
    result: AbResultView | None
    """null while it runs"""
    episodes: list[AbEpisodeView]
    """that counted, by time; none while it runs"""

    @classmethod
    def of(cls, trial: AbTrial, labelled: int, pairs: int) -> AbTrialView:
        """Show what may be seen now."""
        return cls(
            id=trial.id,
            status=trial.status,
            first=trial.first,
            second=trial.second,
            robots=list(trial.robots),
            max_pairs=trial.max_pairs,
            margin=trial.margin,
            alpha=trial.alpha,
            created=trial.created,
            actor=trial.actor,
            reason=trial.reason,
            ended=trial.ended,
            note=trial.note,
            labelled=labelled,
            pairs=pairs,
            result=None if trial.result is None or trial.running else AbResultView.of(trial.result),
            episodes=[AbEpisodeView.model_validate(each, from_attributes=True) for each in trial.episodes],
        )


class AbTrialList(Described):
    """All trials, newest first."""

    data: list[AbTrialView]
    """the trials"""
    damaged: list[Damaged] = Field(default=[], description="trials whose files can't be read")
