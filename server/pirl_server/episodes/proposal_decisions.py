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


def decide(store: EpisodeStore, episode_id: str, decision: Decision, author: str) -> Proposal:
    """Accept, reject or take back, and return the proposal as it is then.

    Raises KeyError for an unknown episode, ValueError where there is nothing to decide or take back, OutdatedError when
    the episode was labelled in this moment, and OSError.
    """
    decided: dict[Decision, Callable[[EpisodeStore, str, str], Proposal]] = {
        "accept": _accept, "reject": _reject, "undo": _undo
    }  # fmt: skip
    return decided[decision](store, episode_id, author)


def _accept(store: EpisodeStore, episode_id: str, author: str) -> Proposal:
    entry, proposal = store.entry(episode_id), _open(store, episode_id)
    if entry.summary.success is not None:
        raise ValueError("it has been labelled since: reject the proposal, or take the label back first")
    store.label(episode_id, proposal.success, SOURCE, note_of(proposal), author, expected=entry.etag)
    return _store_state(store, episode_id, replace(proposal, state="accepted", author=author))


def _reject(store: EpisodeStore, episode_id: str, author: str) -> Proposal:
    store.entry(episode_id)
    return _store_state(store, episode_id, replace(_open(store, episode_id), state="rejected", author=author))


def _undo(store: EpisodeStore, episode_id: str, author: str) -> Proposal:
    """Make a decided proposal open again; the label that it became is taken back, unless another one followed."""
    entry, proposal = store.entry(episode_id), store.proposals.get(episode_id)
    if proposal is None or proposal.state == "open":
        raise ValueError("no proposal of it was accepted or rejected: there is nothing to take back")
    if proposal.state == "accepted" and entry.summary.success is not None:
        if entry.note != note_of(proposal):
            raise ValueError("it was labelled again since: that label stands, take it back first")
        store.undo(episode_id, author, expected=entry.etag)
    return _store_state(store, episode_id, replace(proposal, state="open", author=author))


def _open(store: EpisodeStore, episode_id: str) -> Proposal:
    proposal = store.proposals.get(episode_id)
    if proposal is None:
        raise ValueError("nothing is proposed for it")
    if proposal.state != "open":
        raise ValueError(f"its proposal was {proposal.state} by {proposal.author or 'a person'}: take that back first")
    return proposal


def _store_state(store: EpisodeStore, episode_id: str, proposal: Proposal) -> Proposal:
    made, before = replace(proposal, at=utc_now()), store.proposals.get(episode_id)

    def make() -> dict[str, Proposal]:
        if store.proposals.get(episode_id) != before:
            raise OutdatedError("another decision on its proposal came first: look again")
        return {episode_id: made}

    store.proposals.append(make)
    return made
