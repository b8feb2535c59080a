"""A person accepts or rejects what a success model proposed, or takes that back.

Accepting gives the episode an ordinary label of the source `operator`, with the author and, as its note, which model
was how sure. The label comes first: after a crash in between, the episode is labelled, and so no longer listed as open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from pirl_server.atomic_files import utc_now
from pirl_server.episodes.proposals import Proposal
from pirl_server.episodes.store import EpisodeStore, OutdatedError

SOURCE = "operator"
Decision = Literal["accept", "reject", "undo"]


def note_of(proposal: Proposal) -> str:
    """Return the note of the label that an accepted proposal becomes."""
    return f"accepted from success model {proposal.model}, p(success) {proposal.probability:.3f}"


def decide(store: EpisodeStore, episode_id: str, decision: Decision, author: str, seen: str = "") -> Proposal:
    """Accept, reject or take back, and return the proposal as it is then.

    `seen` is `at` of the proposal that the person looked at; empty: whichever is the newest. Raises KeyError for an
    unknown episode, ValueError where there is nothing to decide or take back, OutdatedError when another proposal or
    decision, or a label, came in between, and OSError.
    """
    decided: dict[Decision, Callable[[EpisodeStore, str, Proposal, str], Proposal]] = {
        "accept": _accept, "reject": _reject, "undo": _undo
    }  # fmt: skip
    store.entry(episode_id)

    def make() -> dict[str, Proposal]:
        """No newer proposal can come between what is looked at here and the decision on it."""
        proposal = store.proposals.get(episode_id)
        if proposal is not None and seen not in ("", proposal.at):
            raise OutdatedError("another proposal, or decision on it, has replaced the one that was seen: look again")
        if proposal is None:
            raise ValueError("nothing is proposed for it")
        return {episode_id: replace(decided[decision](store, episode_id, proposal, author), at=utc_now())}

    return store.proposals.append(make)[episode_id]


def _accept(store: EpisodeStore, episode_id: str, proposal: Proposal, author: str) -> Proposal:
    entry = store.entry(episode_id)
    _check_open(proposal)
    if entry.summary.success is not None:
        raise ValueError("it has been labelled since: reject the proposal, or take the label back first")
    store.label(episode_id, proposal.success, SOURCE, note_of(proposal), author, expected=entry.etag)
    return replace(proposal, state="accepted", author=author)


def _reject(store: EpisodeStore, episode_id: str, proposal: Proposal, author: str) -> Proposal:
    _check_open(proposal)
    return replace(proposal, state="rejected", author=author)


def _undo(store: EpisodeStore, episode_id: str, proposal: Proposal, author: str) -> Proposal:
    """Make a decided proposal open again; the label that it became is taken back, unless another one followed."""
    entry = store.entry(episode_id)
    if proposal.state == "open":
        raise ValueError("no proposal of it was accepted or rejected: there is nothing to take back")
    if proposal.state == "accepted" and entry.summary.success is not None:
        if entry.note != note_of(proposal):
            raise ValueError("it was labelled again since: that label stands, take it back first")
        store.undo(episode_id, author, expected=entry.etag)
    return replace(proposal, state="open", author=author)


def _check_open(proposal: Proposal) -> None:
    if proposal.state != "open":
        raise ValueError(f"its proposal was {proposal.state} by {proposal.author or 'a person'}: take that back first")
