"""JSON schemas of the promotion gate's evidence."""

from __future__ import annotations

from pydantic import Field

from pirl_server.api.described import Described
from pirl_server.registry.promotion_gate import GateResult, Judged
from pirl_server.registry.robot_trial import RobotTrial


class PairedView(Described):
    """The exact paired test on all initial states of a task that both versions were evaluated on."""

    task: str
    """task id"""
    states: int
    """common initial states"""
    incumbent: int
    """successes of the version in production"""
    candidate: int
    """successes of the version to promote"""
    gained: int
    """failures that became successes"""
    lost: int
    """successes that became failures"""
    p_worse: float
    """largest probability of such a result for a version that is worse by the margin"""
    p_not_better: float
    """probability of such a result for an equal version, McNemar one-sided"""
    passed: bool
    """p_worse is at most alpha"""

    @classmethod
    def of(cls, judged: Judged) -> PairedView:
        """Show a test."""
        test, pool = judged.test, judged.pool
        return cls(
            task=pool.task,
            states=test.episodes,
            incumbent=sum(pool.before),
            candidate=sum(pool.after),
            gained=test.gained,
            lost=test.lost,
            p_worse=test.p_not_worse,
            p_not_better=test.p_better,
            passed=judged.passed,
        )


class RobotTrialView(Described):
    """The sequential test on labelled episodes of robots, where no list of initial states can decide."""

    incumbent_successes: int
    """of the version in production"""
    incumbent_episodes: int
    """labelled episodes of the version in production"""
    successes: int
    """of the candidate"""
    episodes: int
    """labelled episodes of the candidate"""
    accepted: bool
    """it is not worse by the margin"""
    rejected: bool
    """it is worse"""
    more_successes: int | None
    """further successes in a row until it is accepted; null: decided, or out of reach"""
    more_expected: int | None
    """further episodes until a version as good as production is accepted every other time; null: as above"""
    margin: float
    """difference of success rates"""
    said: str
    """all of it as text"""

    @classmethod
    def of(cls, trial: RobotTrial) -> RobotTrialView:
        """Show where a trial stands."""
        return cls(
            incumbent_successes=trial.evidence.successes,
            incumbent_episodes=trial.evidence.episodes,
            successes=sum(trial.evidence.outcomes),
            episodes=len(trial.evidence.outcomes),
            accepted=trial.accepted,
            rejected=trial.rejected,
            more_successes=trial.more_successes,
            more_expected=trial.more_expected,
            margin=trial.margin,
            said=str(trial),
        )


class GateEvidence(Described):
    """What the gate rests on."""

    tests: list[PairedView] = Field(default=[])
    """one for each task"""
    unused: list[str] = Field(default=[])
    """why common lists of initial states do not count: tuned on, worn out, of different setups"""
    robots: RobotTrialView | None = None
    """null: the lists decide, or no robot had the version"""

    @classmethod
    def of(cls, result: GateResult) -> GateEvidence:
        """Show what a result rests on."""
        return cls(
            tests=[PairedView.of(each) for each in result.judged],
            unused=list(result.unused),
            robots=None if result.robots is None else RobotTrialView.of(result.robots),
        )


class GateView(Described):
    """What the promotion gate says of a version now; asking changes nothing."""

    version: str
    """version that would be promoted"""
    incumbent: str | None
    """version in production; null: none"""
    allowed: bool
    """POST /v1/models/promote takes it without `force`"""
    refusals: list[str]
    """why not, each with what to do; empty: it is allowed"""
    margin: float
    """difference of success rates on the same initial states"""
    robot_margin: float
    """the same by labelled episodes of robots"""
    alpha: float
    """highest probability that a version which is worse by the margin passes"""
    evidence: GateEvidence
    """the tests"""
