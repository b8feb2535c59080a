"""Chooses the episodes of a store that a job learns from, and counts the others by the reason that left them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from pirl_contract import Contract
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.prefetch import prefetched
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.summary import EpisodeSummary
from pirl_server.training.episode_log import NOT_EXECUTED, EpisodeFacts, EpisodeLog, facts, report_dry_runs
from pirl_server.training.progress import Progress

SECONDS_PER_DAY = 86_400.0
REPORT_EVERY = 25
DRY_RUN, NEW_INSTRUCTION = "dry runs", "with an instruction that is new to the policy"


@dataclass(frozen=True)
class Selected:
    """What a job learns from."""

    log: EpisodeLog
    """newest first"""
    left_out: dict[str, int]
    """why episodes of the store are not in it -> how many"""
    damaged: tuple[str, ...]
    """what is wrong with those that can't be read"""

    def nothing(self) -> str:
        """What to report when the log is empty."""
        if not (total := sum(self.left_out.values())):
            return "no training data: the server keeps no episodes yet"
        why = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        fix = f": {NOT_EXECUTED}" if DRY_RUN in self.left_out else ""
        return f"no training data: none of {total} episodes is left ({why}){fix}"


def select(
    store: EpisodeStore,
    selection: EpisodeSelection,
    contract: Contract,
    instructions: tuple[str, ...] | None,
    now: datetime,
    progress: Progress,
) -> Selected:
    """Choose, newest first; each episode that the list does not rule out is read once.

    `instructions` are those that may be learnt, None: any. Raises ValueError for a selected instruction beyond them.
    """
    _check_instructions(selection, instructions)
    found, left_out, listed = list[EpisodeSummary](), Counter[str](), store.list()
    for each in listed:
        if why := _listed_fault(each, selection, contract, instructions, now):
            left_out[why] += 1
        else:
            found.append(each)
    # What can't be listed may be of any robot: that can't be read either.
    kept, damaged = list[EpisodeFacts](), list(store.damaged.values())
    left_out["damaged"] += len(damaged)
    for number, read in enumerate(_read_ahead(store, found)):
        if selection.limit is not None and len(kept) == selection.limit:
            left_out["beyond the limit"] += len(found) - number
            break
        if isinstance(read, KeyError):
            left_out["removed meanwhile"] += 1
            continue
        if isinstance(read, ValueError):
            damaged.append(str(read))
            left_out["damaged"] += 1
            continue
        if why := _read_fault(read, selection):
            left_out[why] += 1
        else:
            kept.append(read)
        if (number + 1) % REPORT_EVERY == 0:
            progress.progress(number + 1, len(found), "episodes read")
    report_dry_runs(left_out[DRY_RUN], len(kept), progress)
    openers = [partial(_open, store, each) for each in kept]
    return Selected(EpisodeLog(kept, openers), dict(+left_out), tuple(damaged))


def _read_ahead(store: EpisodeStore, found: Sequence[EpisodeSummary]) -> Iterator[EpisodeFacts | KeyError | ValueError]:
    """Count each episode, or say what is wrong with it; its images are checked, a few at a time, and not kept."""

    def read(episode_id: str) -> EpisodeFacts | KeyError | ValueError:
        try:
            return facts(store.open(episode_id, lazily=True, check=True), store.digest(episode_id))
        except (KeyError, ValueError) as error:
            return error

    return prefetched(((1, partial(read, each.id)) for each in found), lambda _: 0)


def _open(store: EpisodeStore, read: EpisodeFacts) -> Episode:
    """Open it with the label that it was selected by, also where it was labelled again meanwhile."""
    return replace(store.open(read.info.id, lazily=True), info=read.info)


def _check_instructions(selection: EpisodeSelection, instructions: tuple[str, ...] | None) -> None:
    if instructions is None:
        return
    for sentence in selection.instructions:
        if sentence not in instructions:
            raise ValueError(unknown_instruction(sentence, instructions))


def unknown_instruction(sentence: str, known: tuple[str, ...]) -> str:
    """What is wrong with an instruction that the base does not know, and the fix."""
    return (
        f"instruction '{sentence}' is not one the policy was trained on ({'; '.join(known)}): set new_instructions to"
        " learn it, or choose others with select.instructions"
    )


def _listed_fault(
    each: EpisodeSummary,
    selection: EpisodeSelection,
    contract: Contract,
    instructions: tuple[str, ...] | None,
    now: datetime,
) -> str:
    """Why an episode is left out, by what the list says of it; empty: it is not."""
    chosen, said = selection, each.instruction
    age_days = (now - datetime.fromisoformat(each.created)).total_seconds() / SECONDS_PER_DAY
    explored = "greedy" if each.sampler == "ode" else "explore"
    checks: list[tuple[str, bool]] = [
        ("of another contract", each.contract_hash != contract.hash),
        ("of another robot", bool(chosen.robots) and each.robot_id not in chosen.robots),
        ("with another instruction", bool(chosen.instructions) and said not in chosen.instructions),
        (NEW_INSTRUCTION, instructions is not None and said not in instructions),
        ("of another version", bool(chosen.versions) and not set(each.policy_versions) <= set(chosen.versions)),
        ("of another mode", chosen.mode not in ("any", explored)),
        (_NOT_LABELLED[chosen.label], not _LABEL[chosen.label](each.success)),
        ("with another label source", bool(chosen.label_sources) and each.label_source not in chosen.label_sources),
        ("older than max_age_days", chosen.max_age_days is not None and age_days > chosen.max_age_days),
        (DRY_RUN, each.dry_run),
    ]
    return next((why for why, applies in checks if applies), "")


_LABEL: dict[str, Callable[[bool | None], bool]] = {
    "labelled": lambda success: success is not None,
    "success": lambda success: success is True,
    "failure": lambda success: success is False,
    "unlabelled": lambda success: success is None,
    "any": lambda success: True,
}


_NOT_LABELLED = {
    "labelled": "without a label",
    "success": "not labelled a success",
    "failure": "not labelled a failure",
    "unlabelled": "labelled",
    "any": "",
}


def _read_fault(read: EpisodeFacts, selection: EpisodeSelection) -> str:
    if not read.targets:
        return "without a step to learn from"
    if selection.source != "any" and (read.human_steps > 0) != (selection.source == "human"):
        return "of another source"
    return ""
