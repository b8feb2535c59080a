"""Chooses the episodes of a store that a job learns from, and counts the others by the reason that left them out.

The index rules episodes out; only those that are left are opened, once each, one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from pirl_contract import Contract
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.success import ModelLabels
from pirl_server.episodes.datasets import Dataset
from pirl_server.episodes.index_rows import EpisodeEntry
from pirl_server.episodes.leases import Lease
from pirl_server.episodes.model_outcomes import MODEL_SOURCE, model_outcome
from pirl_server.episodes.prefetch import prefetched
from pirl_server.episodes.query import (
    DRY_RUN,
    NEW_INSTRUCTION,
    NO_SUCCESS,
    NO_TARGET,
    OTHER_CONTRACT,
    OTHER_SOURCE,
    Learning,
)
from pirl_server.episodes.schema import Episode, EpisodeInfo
from pirl_server.episodes.store import EpisodeStore
from pirl_server.training.episode_log import NOT_EXECUTED, EpisodeFacts, EpisodeLog, facts, report_dry_runs
from pirl_server.training.progress import Progress

REPORT_EVERY = 25


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
    progress: Progress,
    model: ModelLabels | None = None,
) -> Selected:
    """Choose, newest first; each episode that the index does not rule out is read once.

    `instructions` are those that may be learnt, None: any. Episodes without a label get the outcome that `model`
    proposed, of the label source `MODEL_SOURCE`. Raises ValueError for a selected instruction beyond them.
    """
    _check_instructions(selection, instructions)
    learning = Learning(contract.hash, instructions)
    left_out = Counter(store.left_out(selection, learning))
    total = left_out.pop("", 0)
    # What can't be listed may be of any robot: that can't be read either.
    damaged = list(store.damaged.values())
    left_out["damaged"] += len(damaged)
    kept, number = list[EpisodeFacts](), 0
    lease = store.leases.take()
    for number, read in enumerate(_read_ahead(store, store.select(selection, learning)), 1):
        if selection.limit is not None and len(kept) == selection.limit:
            left_out["beyond the limit"] += total - number + 1
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
            # One contract for all of them: its own copy would be most of what is kept of an episode.
            kept.append(replace(read, info=replace(_judged(store, read.info, model), contract=contract)))
        if number % REPORT_EVERY == 0:
            progress.progress(number, total, "episodes read")
    report_dry_runs(left_out[DRY_RUN], len(kept), progress)
    lease.set(each.info.id for each in kept)
    openers = [partial(_open, store, lease, each) for each in kept]
    return Selected(EpisodeLog(kept, openers), dict(+left_out), tuple(damaged))


def _read_ahead(store: EpisodeStore, found: Iterable[EpisodeEntry]) -> Iterator[EpisodeFacts | KeyError | ValueError]:
    """Count each episode, or say what is wrong with it; its images are checked, a few at a time, and not kept."""

    def read(entry: EpisodeEntry) -> EpisodeFacts | KeyError | ValueError:
        try:
            return facts(store.open(entry.summary.id, lazily=True, check=True), entry.digest)
        except (KeyError, ValueError) as error:
            return error

    return prefetched(((1, partial(read, each)) for each in found), lambda _: 0)


def select_frozen(
    store: EpisodeStore,
    dataset: Dataset,
    contract: Contract,
    instructions: tuple[str, ...] | None,
    successes: bool,
    progress: Progress,
) -> Selected:
    """Take the episodes of a dataset with the labels that were frozen with them; each is read once.

    With `successes` only those. Others that can't be learnt are left out, as by `select`. Raises ValueError that names
    an episode when one is missing or was changed.
    """
    lease = store.leases.take()
    lease.set(each.id for each in dataset.episodes)
    kept, left_out = list[EpisodeFacts](), Counter[str]()
    for number, frozen in enumerate(dataset.episodes, 1):
        try:
            read = facts(store.open_frozen(frozen, lazily=True, check=True), frozen.digest)
        except ValueError as error:
            raise ValueError(f"dataset '{dataset.name}': {error}") from None
        if why := _frozen_fault(read, contract, instructions, successes):
            left_out[why] += 1
        else:
            kept.append(replace(read, info=replace(read.info, contract=contract)))
        if number % REPORT_EVERY == 0:
            progress.progress(number, len(dataset.episodes), "episodes read")
    report_dry_runs(left_out[DRY_RUN], len(kept), progress)
    openers = [partial(_open, store, lease, each) for each in kept]
    return Selected(EpisodeLog(kept, openers), dict(+left_out), ())


def _judged(store: EpisodeStore, info: EpisodeInfo, model: ModelLabels | None) -> EpisodeInfo:
    """Return the info with the model's outcome, where there is no label and the model is sure enough."""
    if model is None or info.success is not None:
        return info
    try:
        success = model_outcome(store, info.id, model)
    except KeyError:  # removed meanwhile: opening it will fail
        return info
    return info if success is None else replace(info, success=success, label_source=MODEL_SOURCE)


def _open(store: EpisodeStore, lease: Lease, read: EpisodeFacts) -> Episode:
    """Open it with the label that it was selected by, also where it was labelled again meanwhile.

    The lease lives as long as one of these: until then the episode is not removed.
    """
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


def _frozen_fault(read: EpisodeFacts, contract: Contract, instructions: tuple[str, ...] | None, successes: bool) -> str:
    if read.info.contract.hash != contract.hash:
        return OTHER_CONTRACT
    if instructions is not None and read.info.instruction not in instructions:
        return NEW_INSTRUCTION
    if successes and not read.info.success:
        return NO_SUCCESS
    return DRY_RUN if read.info.dry_run else _read_fault(read, EpisodeSelection())


def _read_fault(read: EpisodeFacts, selection: EpisodeSelection) -> str:
    if not read.targets:
        return NO_TARGET
    if selection.source != "any" and (read.human_steps > 0) != (selection.source == "human"):
        return OTHER_SOURCE
    return ""
