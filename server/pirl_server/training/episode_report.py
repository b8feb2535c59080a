"""What is in the episodes that a job learns from, before it learns: counts, what may not be learnt, and warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, field

from pydantic.dataclasses import dataclass

from pirl_server.episodes.model_outcomes import MODEL_SOURCE
from pirl_server.episodes.query import NEW_INSTRUCTION
from pirl_server.training.episode_log import EpisodeFacts
from pirl_server.training.episode_selection import Selected
from pirl_server.training.method_choice import choose

DATA_REPORT = "data_report.json"
"""its file in the folder of a job"""
FEW_EPISODES = 10
MUCH_MASKED = 0.2
"""share of steps that may not be learnt from which on the report warns"""
Counts = dict[str, int]


@dataclass(frozen=True)
class Densities:
    """What the log-densities of exploring episodes are worth for the base."""

    fresh: tuple[str, ...] = ()
    """the base and the versions shortly before it that the registry keeps: PPO learns from theirs"""
    episodes: int = 0
    """the newest so many were looked at"""
    ess: dict[str, float] = field(default_factory=dict)
    """version -> effective sample size of the weights base / version, as a share: 1 for the base"""
    mismatch: float | None = None
    """largest difference of a stored log-density from the recomputed one, nats; null: none was recomputed"""
    unusable: Counts = field(default_factory=dict)
    """why decisions of these episodes are none of PPO's -> how many"""


@dataclass(frozen=True)
class DataReport:
    """A data report. Steps are control steps, shares are of 1."""

    episodes: int
    left_out: Counts
    """why other episodes of the store are not among them -> how many"""
    outcomes: Counts
    """success, failure, unlabelled -> episodes"""
    instructions: Counts
    versions: Counts
    """policy version -> episodes with a chunk of it"""
    robots: Counts
    modes: Counts
    """explore, greedy -> episodes"""
    label_sources: Counts
    end_reasons: Counts
    oldest: str
    newest: str
    """when they were published, ISO 8601 UTC; empty without episodes"""
    of_other_versions: int
    """episodes with a chunk of another version than the base; 0 without a base"""
    steps: int
    steps_masked: Counts
    """why steps may not be learnt -> how many"""
    human_steps: int
    human_share: float
    """of the steps that may be learnt"""
    takeovers: int
    steps_before_takeover: int
    """the policy's last 2 s before takeovers: failures, whatever the label"""
    decisions: int
    """policy calls whose chunk was played"""
    densities: int
    """of them, with a log-density"""
    density: Densities
    methods: dict[str, str]
    """method of `finetune_episodes` -> 'yes', or why it can't use these episodes; `auto` -> what it chooses, and why"""
    warnings: tuple[str, ...]
    model_labels: int
    """of the labels, how many are outcomes that a success model proposed"""
    sha256: str
    """over the sorted lines `ID MANIFEST-SHA256 LABEL` of the episodes"""
    ids: tuple[str, ...]
    """newest first"""


def report(selected: Selected, base_version: str | None, min_episodes: int, density: Densities) -> DataReport:
    """Count the selected episodes. Opens none: `select` has read each."""
    log, facts = selected.log, selected.log.facts
    steps, masked = sum(each.steps for each in facts), _total(each.masked for each in facts)
    human, targets = sum(each.human_steps for each in facts), sum(each.targets for each in facts)
    created = sorted(each.info.created for each in facts)
    return DataReport(
        episodes=len(facts),
        left_out=selected.left_out,
        outcomes=_count(facts, lambda each: [_OUTCOMES[each.info.success]]),
        instructions=_count(facts, lambda each: [each.info.instruction]),
        versions=_count(facts, lambda each: each.info.policy_versions),
        robots=_count(facts, lambda each: [each.info.robot_id]),
        modes=_count(facts, lambda each: ["explore" if each.explored else "greedy"]),
        label_sources=_count(facts, lambda each: [each.info.label_source] if each.labelled else []),
        end_reasons=_count(facts, lambda each: [each.info.end_reason]),
        oldest=created[0] if created else "",
        newest=created[-1] if created else "",
        of_other_versions=_of_others(facts, base_version),
        steps=steps,
        steps_masked=masked,
        human_steps=human,
        human_share=human / targets if targets else 0.0,
        takeovers=sum(each.takeovers for each in facts),
        steps_before_takeover=sum(each.steps_before_takeover for each in facts),
        decisions=sum(each.decisions for each in facts),
        densities=sum(each.densities for each in facts),
        density=density,
        methods=_methods(facts, density, min_episodes),
        warnings=(*_warnings(facts, base_version), *_left_out(selected)),
        model_labels=_by_model(facts),
        sha256=log.digest,
        ids=tuple(each.info.id for each in facts),
    )


def lines(found: DataReport) -> list[str]:
    """Return it for a terminal: a line each, the warnings last."""
    values = asdict(found)
    for name in ("ids", "warnings"):
        del values[name]
    shown = []
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {each}" for key, each in value.items()) or "none"
        shown.append(
            f"{name.replace('_', ' '):22} {value:.3f}"
            if isinstance(value, float)
            else f"{name.replace('_', ' '):22} {value}"
        )
    return shown + [f"warning: {each}" for each in found.warnings]


_OUTCOMES = {True: "success", False: "failure", None: "unlabelled"}


def _by_model(facts: Sequence[EpisodeFacts]) -> int:
    return sum(each.labelled and each.info.label_source == MODEL_SOURCE for each in facts)


def _count(facts: Sequence[EpisodeFacts], of: Callable[[EpisodeFacts], Iterable[str]]) -> Counts:
    return dict(Counter(name for each in facts for name in of(each)))


def _total(counts: Iterable[Mapping[str, int]]) -> Counts:
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return dict(total)


def _of_others(facts: Sequence[EpisodeFacts], base_version: str | None) -> int:
    if base_version is None:
        return 0
    return sum(any(version != base_version for version in each.info.policy_versions) for each in facts)


def _methods(facts: Sequence[EpisodeFacts], density: Densities, least: int) -> dict[str, str]:
    """Method -> 'yes', or why not: by what each needs of a log at least. Training may reject more, with the reason."""
    outcomes = Counter(each.info.success for each in facts)
    labelled = outcomes[True] + outcomes[False]
    corrected = any(each.takeovers and each.human_steps for each in facts)
    both = outcomes[False] > 0 or any(each.steps_before_takeover for each in facts)
    comparison = "yes" if outcomes[True] and both else "successes and failures are both needed"
    few = f"{labelled} labelled episodes, at least {least} are needed (min_episodes)" if labelled < least else ""
    good = outcomes[True] > 0 or any(each.human_steps for each in facts)
    chosen = choose(facts, density.fresh)
    return {
        "auto": f"{chosen.method}: {chosen.why}",
        "filtered_bc": few or ("yes" if good else "no episode succeeded and no human drove"),
        "dagger": few or ("yes" if corrected else "no human took over"),
        "advantage_weighted": few or comparison,
        "recap": few or comparison,
        "progress": "yes" if len(facts) >= least else f"{len(facts)} episodes, at least {least} are needed",
        "ppo_logged": few or (comparison if comparison != "yes" else _chain(density)),
        "dsrl": few or comparison,
    }


def _chain(density: Densities) -> str:
    if density.ess:
        return "yes"
    if not density.episodes:
        return "no episode of the base or a version shortly before it has log-densities: serve the base with --explore"
    return next(iter(density.unusable), "no decision is left")


def _left_out(selected: Selected) -> list[str]:
    found = list(selected.damaged)
    if count := selected.left_out.get(NEW_INSTRUCTION):
        found.append(f"{count} episodes are left out {NEW_INSTRUCTION}: set new_instructions to learn from them")
    return found


def _warnings(facts: Sequence[EpisodeFacts], base_version: str | None) -> list[str]:
    found = []
    outcomes = Counter(each.info.success for each in facts)
    for success, name in ((True, "success"), (False, "failure")):
        if 0 < outcomes[success] < FEW_EPISODES:
            found.append(
                f"only {outcomes[success]} episodes are labelled {name}: what is learnt may be their accidents"
            )
    if by_model := _by_model(facts):
        labelled = outcomes[True] + outcomes[False]
        found.append(f"{by_model} of {labelled} labels are what a success model proposed, not what a person said")
    if outcomes[None]:
        found.append(f"{outcomes[None]} episodes have no label: it is not known how they ended")
    steps, masked = sum(each.steps for each in facts), sum(sum(each.masked.values()) for each in facts)
    if steps and masked / steps > MUCH_MASKED:
        found.append(f"{masked} of {steps} steps may not be learnt, because the arm was held: see steps_masked")
    if (others := _of_others(facts, base_version)) and base_version is not None:
        found.append(
            f"{others} of {len(facts)} episodes are of other versions than the base {base_version}: what they show of"
            " states and mistakes may be outdated"
        )
    repeated = sum(each.repeated_states for each in facts)
    if steps and repeated / steps > MUCH_MASKED:
        found.append(
            f"{repeated} of {steps} recorded states repeat the one before although the arm was moved: a client that"
            " reports an old state with a step teaches actions for wrong states"
        )
    return found
