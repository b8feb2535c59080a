"""The promotion gate: decides whether a version may replace the production version.

What held-out episodes say against a version (`registry.offline_evidence`) rejects it, whatever it does in a simulator.

The rule: both were evaluated on common initial states (same lists, same setup, at least 50 states together) of a task
that the production version was trained for; on every such task the exact paired test shows that the candidate is not
worse by the margin (`registry.margin_test`); and both have the same contract. Lists that were tuned on, and those that
the gate has worn out, do not count (`registry.gate_lists`). On any other task the production version may fail as random
weights do, so that equality there means nothing.

Without common states, labelled episodes of robots decide, by a sequential test (`registry.robot_trial`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pirl_server.atomic_files import read_json
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.gate_lists import Comparison, Pool, common_lists, pooled, worn_out
from pirl_server.registry.gate_rule import USUAL_RULE, GateRule
from pirl_server.registry.margin_test import states_needed
from pirl_server.registry.paired_test import PairedTest, paired_test
from pirl_server.registry.robot_trial import RobotEvidence, RobotTrial, judge_robots
from pirl_server.registry.versions import ModelVersion, Registry

CARD = "card.json"
"""of a checkpoint: names its task and the instructions that it was trained on"""
SeeRobots = Callable[[str, str, Collection[str]], RobotEvidence | None]
"""(incumbent, candidate, instructions) -> what robots did with both; None: nothing is known; see `robot_evidence`"""


def no_robots(incumbent: str, candidate: str, instructions: Collection[str]) -> None:
    """Know nothing of robots."""


@dataclass(frozen=True)
class Judged:
    """The test on all common states of one task."""

    pool: Pool
    test: PairedTest
    passed: bool
    worn_out: str = ""
    """why the gate judges these states no more; empty: it does"""


@dataclass(frozen=True)
class GateResult:
    """What the gate saw and why it rejects; no reasons: it lets the candidate through."""

    refusals: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    judged: tuple[Judged, ...] = ()
    """one for each task"""
    unused: tuple[str, ...] = ()
    """why common lists do not count"""
    robots: RobotTrial | None = None
    """None: the lists decide"""

    @property
    def allowed(self) -> bool:
        """True when nothing speaks against the promotion."""
        return not self.refusals


def check_gate(
    registry: Registry,
    incumbent: str | None,
    candidate: str,
    rule: GateRule = USUAL_RULE,
    see_robots: SeeRobots = no_robots,
    instructions: Collection[str] = (),
) -> GateResult:
    """Apply the rule; without an incumbent there is nothing to be worse than. KeyError for an unknown version.

    Of robots' episodes only those with these instructions count; with none given, those the candidate was tried with.
    """
    new = registry.get(candidate)
    if incumbent is None:
        return GateResult(())
    old = registry.get(incumbent)
    refusals = [f"contract differs, {line}" for line in old.contract.difference(new.contract)]
    refusals += offline_refusals(registry, candidate)
    try:
        trained = Training.of(old)
    except ValueError as error:
        return GateResult((*refusals, f"the task of {incumbent} is not known: {error}"))
    pairs, unused = common_lists(registry, old, new)
    pools = pooled([pair for pair in pairs if trained.covers(pair.incumbent)])
    if not pools:
        seen = see_robots(incumbent, candidate, instructions)
        return _by_robots(refusals, unused, seen, rule, (candidate, incumbent, trained))
    judged = [_judge(pool, rule, worn_out(registry, pool, candidate)) for pool in pools]
    refusals += [why for each in judged if (why := each.worn_out or _worse(each, rule))]
    comparisons = [pair for pool in pools for pair in pool.comparisons]
    return GateResult(tuple(refusals), tuple(comparisons), tuple(judged), tuple(unused))


def _by_robots(
    refusals: list[str],
    unused: list[str],
    evidence: RobotEvidence | None,
    rule: GateRule,
    about: tuple[str, str, Training],
) -> GateResult:
    candidate, incumbent, trained = about
    trial = None if evidence is None else judge_robots(evidence, rule)
    if trial is not None and trial.accepted:
        return GateResult(tuple(refusals), (), (), tuple(unused), trial)
    missing = (
        f"{candidate} and {incumbent} have no evaluation on the same fixed list of {rule.episodes} or more"
        f" episodes of a task that {incumbent} was trained for ({trained}): run an evaluate job with that task and"
        " the same seed and episodes for both; where there is no simulator, label episodes of a canary"
    )
    said = () if trial is None else (f"on robots {trial}",)
    return GateResult((*refusals, missing, *unused, *said), (), (), tuple(unused), trial)


def offline_refusals(registry: Registry, version: str) -> tuple[str, ...]:
    """What the version's held-out episodes say against it; none: nothing, or nothing was measured."""
    try:
        found = registry.offline.of(version)
    except ValueError as error:
        return (str(error),)
    return () if found is None else found.refusals


@dataclass(frozen=True)
class Training:
    """What a version was trained for, as its card says."""

    task: str
    instructions: frozenset[str]

    @classmethod
    def of(cls, model: ModelVersion) -> Training:
        """Raises ValueError that names the card when it can't be read."""
        path = model.path / CARD
        try:
            card = read_json(path)
            return cls(card.get("task", ""), frozenset(card.get("instructions", ())))
        except (OSError, AttributeError, TypeError) as error:
            raise ValueError(f"'{path}' can't be read: {error}") from None

    def covers(self, evaluation: Evaluation) -> bool:
        """Whether the list is of its task, or of one whose every instruction it was trained on."""
        told = frozenset(evaluation.instructions)
        return evaluation.task == self.task or (bool(told) and told <= self.instructions)

    def __str__(self) -> str:
        return self.task or f"its card names none, but {len(self.instructions)} instructions"


def _judge(pool: Pool, rule: GateRule, worn: str) -> Judged:
    test = paired_test(pool.before, pool.after, rule.margin)
    passed = not worn and test.p_not_worse <= rule.alpha and test.episodes >= rule.episodes
    return Judged(pool, test, passed, worn)


def _worse(judged: Judged, rule: GateRule) -> str:
    """Why this task speaks against the candidate; empty: it does not."""
    pool, test = judged.pool, judged.test
    if judged.passed:
        return ""
    new, old = pool.comparisons[0].candidate.version, pool.comparisons[0].incumbent.version
    counts = f"{new} succeeded {sum(pool.after)} of {test.episodes} times and {old} {sum(pool.before)}"
    where = f"on {pool.task}, {_names(pool.evaluations)}"
    if test.episodes < rule.episodes:
        return f"{where}, {counts}: fewer than {rule.episodes} common initial states, evaluate both on more"
    if test.p_not_worse > 0.5:
        return f"{where}, {counts} ({test}): a regression"
    needed = states_needed(rule.margin, rule.alpha, max(test.changing, rule.margin))
    return (
        f"{where}, {counts} ({test}): that it is not worse by {rule.margin:g} is not shown, alpha is {rule.alpha:g}; an"
        f" equal version passes in four of five cases on about {needed} states"
    )


def _names(evaluations: Sequence[Evaluation]) -> str:
    return " and ".join(dict.fromkeys(each.name for each in evaluations))
