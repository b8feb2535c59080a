"""The promotion gate: decides whether a version may replace the production version.

What held-out episodes say against a version (`registry.offline_evidence`) rejects it, whatever it does in a simulator.

The rule: both were evaluated on at least one common fixed list (same task, same initial states, at least 50
episodes) of a task that the production version was trained for; on every such list the candidate succeeded at least as
often; and both have the same contract. On any other task the production version may fail as random weights do, so that
equality there means nothing. The intervals are reported, not tested: with n in the hundreds a test would let a slightly
worse candidate through, or hold back an equal one.
"""

from __future__ import annotations

from dataclasses import dataclass

from pirl_server.atomic_files import read_json
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.versions import ModelVersion, Registry

MIN_EPISODES = 50
CARD = "card.json"
"""of a checkpoint: names its task and the instructions that it was trained on"""


@dataclass(frozen=True)
class Comparison:
    """Both versions on one common list."""

    incumbent: Evaluation
    candidate: Evaluation


@dataclass(frozen=True)
class GateResult:
    """What the gate saw and why it rejects; no reasons: it lets the candidate through."""

    refusals: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()

    @property
    def allowed(self) -> bool:
        """True when nothing speaks against the promotion."""
        return not self.refusals


def check_gate(registry: Registry, incumbent: str | None, candidate: str) -> GateResult:
    """Apply the rule; without an incumbent there is nothing to be worse than. KeyError for an unknown version."""
    new = registry.get(candidate)
    if incumbent is None:
        return GateResult(())
    old = registry.get(incumbent)
    refusals = [f"contract differs, {line}" for line in old.contract.difference(new.contract)]
    refusals += offline_refusals(registry, candidate)
    try:
        trained = _Training.of(old)
    except ValueError as error:
        return GateResult((*refusals, f"the task of {incumbent} is not known: {error}"))
    comparisons = [pair for pair in _common_lists(registry, old, new) if trained.covers(pair.incumbent)]
    if not comparisons:
        refusals.append(
            f"{candidate} and {incumbent} have no evaluation on the same fixed list of {MIN_EPISODES} or more"
            f" episodes of a task that {incumbent} was trained for ({trained}): run an evaluate job with that task and"
            " the same seed and episodes for both"
        )
    refusals += [_worse(pair) for pair in comparisons if pair.candidate.successes < pair.incumbent.successes]
    return GateResult(tuple(refusals), tuple(comparisons))


def offline_refusals(registry: Registry, version: str) -> tuple[str, ...]:
    """What the version's held-out episodes say against it; none: nothing, or nothing was measured."""
    try:
        found = registry.offline.of(version)
    except ValueError as error:
        return (str(error),)
    return () if found is None else found.refusals


@dataclass(frozen=True)
class _Training:
    """What a version was trained for, as its card says."""

    task: str
    instructions: frozenset[str]

    @classmethod
    def of(cls, model: ModelVersion) -> _Training:
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


def _common_lists(registry: Registry, old: ModelVersion, new: ModelVersion) -> list[Comparison]:
    baseline = {(found.task, found.list_hash, found.episodes): found for found in registry.evaluations.of(old.version)}
    return [
        Comparison(baseline[key], found)
        for found in registry.evaluations.of(new.version)
        if (key := (found.task, found.list_hash, found.episodes)) in baseline and found.episodes >= MIN_EPISODES
    ]


def _worse(pair: Comparison) -> str:
    new, old = pair.candidate, pair.incumbent
    return (
        f"on {new.task}, list {new.list_hash}, {new.version} succeeded {new.successes} of {new.episodes} times"
        f" and {old.version} {old.successes}: a regression"
    )
