"""Proposes labels for episodes that have none, where a success model is sure enough."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pirl_server.atomic_files import utc_now
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.datasets import Frozen
from pirl_server.episodes.index_rows import EpisodeEntry
from pirl_server.episodes.proposals import Proposal
from pirl_server.episodes.query import DRY_RUN, OTHER_CONTRACT
from pirl_server.episodes.store import EpisodeStore
from pirl_server.registry.success_models import SuccessCard
from pirl_server.training.progress import Progress
from pirl_server.training.success.final_frames import AT_ONCE, Final, frozen_of, read, stacked, without_faults
from pirl_server.training.success.success_judge import SuccessJudge

LABELLED, UNSURE = "labelled", "below the model's threshold"
DECIDED = "a person decided on an earlier proposal"
OTHER_INSTRUCTION = "with an instruction that the model did not learn from"


@dataclass(frozen=True)
class Proposed:
    """What was proposed, and why not more."""

    success: int
    failure: int
    left_out: dict[str, int]

    def result(self) -> dict[str, Any]:
        """Return it for a job's result."""
        return {"proposed": self.success + self.failure, "proposed_success": self.success,
                "proposed_failure": self.failure, "not_proposed": self.left_out}  # fmt: skip


def propose(
    store: EpisodeStore,
    judge: SuccessJudge,
    card: SuccessCard,
    selection: EpisodeSelection,
    progress: Progress,
    job: str = "",
) -> Proposed:
    """Judge the unlabelled episodes of a selection by their last observation, and store what is sure enough.

    A newer proposal replaces one that is still open. Raises ValueError for a model without a threshold, OSError.
    """
    if card.threshold is None:
        raise ValueError(f"success model '{card.version}' is not reliable enough to propose labels: train another one")
    lease = store.leases.take()
    left_out = Counter[str]()
    reasons = ((frozen_of(each), _fault(store, card, each)) for each in store.select(selection))
    chosen = list(islice(without_faults(reasons, left_out), selection.limit))
    lease.set(each.id for each in chosen)
    made, waiting = dict[str, Proposal](), list[tuple[Frozen, Final]]()
    for number, (frozen, final) in enumerate(read(store, chosen), 1):
        if isinstance(final, str):
            left_out[final] += 1
        else:
            waiting.append((frozen, final))
        if len(waiting) == AT_ONCE or (waiting and number == len(chosen)):
            made |= _judged(judge, card, waiting, left_out, job)
            waiting.clear()
            progress.progress(number, len(chosen), f"episodes judged, {len(made)} proposals")
        if progress.cancelled:
            break
    lease.release()
    stored = store.proposals.append(lambda: {each: new for each, new in made.items() if not _settled(store, each)})
    outcomes = [each.success for each in stored.values()]
    return Proposed(outcomes.count(True), outcomes.count(False), dict(+left_out))


def _fault(store: EpisodeStore, card: SuccessCard, entry: EpisodeEntry) -> str:
    said = entry.summary
    if said.success is not None:
        return LABELLED
    if said.contract_hash != card.contract_hash:
        return OTHER_CONTRACT
    if said.instruction not in card.instructions:
        return OTHER_INSTRUCTION
    if said.dry_run:
        return DRY_RUN
    return DECIDED if _settled(store, said.id) else ""


def _settled(store: EpisodeStore, episode_id: str) -> bool:
    before = store.proposals.get(episode_id)
    return before is not None and before.state != "open"


def _judged(
    judge: SuccessJudge, card: SuccessCard, found: list[tuple[Frozen, Final]], left_out: Counter[str], job: str
) -> dict[str, Proposal]:
    """Return the proposals of those that the model is sure enough of."""
    assert card.threshold is not None
    made = dict[str, Proposal]()
    for (frozen, _), probability in zip(found, judge.probabilities(stacked(found)).tolist()):
        proposal = Proposal(probability >= 0.5, probability, card.version, utc_now(), job=job)
        if proposal.confidence >= card.threshold:
            made[frozen.id] = proposal
        else:
            left_out[UNSURE] += 1
    return made
