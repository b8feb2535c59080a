"""Which evaluations two versions may be compared by: same states and setup, and neither tuned on nor worn out.

States that both were evaluated on are pooled over all lists of a task, each counted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.gate_uses import GateUse, digest
from pirl_server.registry.versions import ModelVersion, Registry

MOST_USES = 2
"""looks of the gate at growing or changed evidence on the same states, for one candidate"""


@dataclass(frozen=True)
class Comparison:
    """Both versions on one common list."""

    incumbent: Evaluation
    candidate: Evaluation


@dataclass(frozen=True)
class Pool:
    """All states of a task that both were evaluated on."""

    task: str
    comparisons: tuple[Comparison, ...]
    before: tuple[bool, ...]
    """of the incumbent"""
    after: tuple[bool, ...]
    """of the candidate on the same states"""

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """All that it rests on."""
        return tuple(each for pair in self.comparisons for each in (pair.incumbent, pair.candidate))

    @property
    def digest(self) -> str:
        """Identity of the evidence."""
        return digest(self.evaluations)


def pooled(pairs: Sequence[Comparison]) -> list[Pool]:
    """Return the states of each task; of one that was evaluated in several lists the newest result counts."""
    pools = []
    for task in sorted({pair.candidate.task for pair in pairs}):
        own = [pair for pair in pairs if pair.candidate.task == task]
        outcomes = dict[tuple[object, int], tuple[bool, bool]]()
        for pair in sorted(own, key=lambda pair: pair.candidate.created):
            named = pair.candidate.list_hash if pair.candidate.list is None else pair.candidate.list
            both = zip(pair.incumbent.outcomes, pair.candidate.outcomes)
            outcomes |= {(named, pair.candidate.first + at): each for at, each in enumerate(both)}
        before, after = tuple(old for old, _ in outcomes.values()), tuple(new for _, new in outcomes.values())
        pools.append(Pool(task, tuple(own), before, after))
    return pools


def common_lists(registry: Registry, old: ModelVersion, new: ModelVersion) -> tuple[list[Comparison], list[str]]:
    """Return the pairs that count, and of each that does not the reason. Raises ValueError for damaged files."""
    tuned = registry.evaluations.tuned_on()
    ancestors = [(name, registry.gate_uses.of(name)) for name in _ancestors(registry, new, old)]
    pairs, unused = list[Comparison](), list[str]()
    for pair in _same_lists(registry, old, new):
        why = _unpaired(pair) or _tuned(pair, tuned) or _inherited(pair, ancestors)
        unused.append(why) if why else pairs.append(pair)
    return pairs, unused


def worn_out(registry: Registry, pool: Pool, candidate: str) -> str:
    """Why the gate judges these states no more; empty: it does. Evidence that it has judged is judged again."""
    uses = registry.gate_uses.of(candidate)
    if pool.digest in {use.digest for use in uses}:
        return ""
    for pair in pool.comparisons:
        if len({use.digest for use in uses if use.overlaps(pair.candidate)}) >= MOST_USES:
            return (
                f"{pair.candidate.name} of {pool.task} was used by the gate for {candidate} {MOST_USES} times: evaluate"
                " both versions on states that it has not seen, with another first"
            )
    return ""


def _same_lists(registry: Registry, old: ModelVersion, new: ModelVersion) -> Iterator[Comparison]:
    def key(found: Evaluation) -> tuple[str, str, int]:
        return found.task, found.list_hash, found.episodes

    baseline = {key(found): found for found in registry.evaluations.of(old.version) if found.purpose == "gate"}
    for found in registry.evaluations.of(new.version):
        if found.purpose == "gate" and key(found) in baseline:
            yield Comparison(baseline[key(found)], found)


def _unpaired(pair: Comparison) -> str:
    old, new = pair.incumbent, pair.candidate
    for each in (old, new):
        if not each.outcomes:
            return f"the evaluation of {each.version} on {new.name} holds no outcome of each state: evaluate it again"
    if dict(old.setup) != dict(new.setup):
        return (
            f"the evaluations on {new.name} of {new.task} have different setups, {old.version} with"
            f" {_setup(old)} and {new.version} with {_setup(new)}: evaluate both with the same"
        )
    return ""


def _setup(evaluation: Evaluation) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(evaluation.setup.items())) or "one that was not recorded"


def _tuned(pair: Comparison, tuned: Sequence[Evaluation]) -> str:
    for each in tuned:
        if each.overlaps(pair.candidate):
            return (
                f"{pair.candidate.name} of {pair.candidate.task} was used for tuning ({each.name}, version"
                f" {each.version}, {each.job or 'no job'}): evaluate both versions on states of another list"
            )
    return ""


def _inherited(pair: Comparison, ancestors: Sequence[tuple[str, tuple[GateUse, ...]]]) -> str:
    for name, uses in ancestors:
        if any(use.overlaps(pair.candidate) for use in uses):
            return (
                f"{pair.candidate.name} of {pair.candidate.task} has judged {name}, which {pair.candidate.version} was"
                " trained from, so that it may owe its result to these states: evaluate both versions on others"
            )
    return ""


def _ancestors(registry: Registry, new: ModelVersion, old: ModelVersion) -> list[str]:
    """Versions that the new one was trained from, up to the first that the old one is or was trained from too."""
    shared = {old.version, *_lineage(registry, old)}
    return list(takewhile(lambda version: version not in shared, _lineage(registry, new)))


def _lineage(registry: Registry, model: ModelVersion) -> list[str]:
    """Parent, its parent and so on; up to one that is not in the registry any more."""
    found, parent = list[str](), model.parent
    while parent is not None and parent not in found:
        found.append(parent)
        try:
            parent = registry.get(parent).parent
        except (KeyError, ValueError):
            parent = None
    return found
