"""Labels that a success model proposes: kept apart, decided by people over REST and on the command line, taken back."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from many_episodes import many
from whole_server import Server

from pirl_server.atomic_files import utc_now
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.data_commands import episodes
from pirl_server.episodes.proposal_decisions import decide
from pirl_server.episodes.proposals import Proposal
from pirl_server.episodes.store import EpisodeStore, OutdatedError

MODEL = "abcdefabcdef"


def proposed(store: EpisodeStore, count: int = 40) -> list[str]:
    """Publish episodes, and propose a label for each unlabelled one, in turn success and failure."""
    unlabelled = [each.id for each in many(store.root, count) if each.success is None]
    made = {
        each: Proposal(number % 2 == 0, 0.9 if number % 2 == 0 else 0.2, MODEL, utc_now())
        for number, each in enumerate(unlabelled)
    }
    store.proposals.append(lambda: made)
    return unlabelled


def listed(web: httpx.Client, query: str) -> set[str]:
    page = web.get(f"/v1/episodes?limit=100&{query}").json()
    return {each["id"] for each in page["data"]}


def post(web: httpx.Client, decision: str, *ids: str) -> dict[str, Any]:
    reply = web.post("/v1/proposals", json={"decision": decision, "episodes": list(ids)})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_a_proposal_is_shown_and_is_no_label(web: httpx.Client, store: EpisodeStore) -> None:
    ids = proposed(store)
    before = [store.entry(each) for each in ids]
    assert all(each.summary.success is None and each.label_count == 0 for each in before)
    assert listed(web, "proposal=open") == set(ids)
    assert listed(web, "proposal=success") == set(ids[::2])
    assert listed(web, "proposal=failure") == set(ids[1::2])
    assert listed(web, "label=labelled").isdisjoint(ids)
    assert listed(web, "success=true").isdisjoint(ids)
    shown = web.get(f"/v1/episodes/{ids[1]}").json()
    assert (shown["success"], shown["label_source"]) == (None, "")
    assert (shown["proposal"]["success"], shown["proposal"]["probability"], shown["proposal"]["state"]) == (
        False, 0.2, "open"
    )  # fmt: skip
    assert web.get("/v1/episodes?proposal=maybe").status_code == 422


def test_accepting_one_or_many_makes_labels_with_author_and_model(web: httpx.Client, store: EpisodeStore) -> None:
    ids = proposed(store)
    found = post(web, "accept", ids[0], ids[1], "f" * 32)
    assert found["changed"] == 2
    assert [each["error"] for each in found["data"]] == ["", "", "there is no such episode"]
    for episode_id, success, words in ((ids[0], True, "0.900"), (ids[1], False, "0.200")):
        shown = web.get(f"/v1/episodes/{episode_id}").json()
        assert (shown["success"], shown["label_source"]) == (success, "operator")
        assert shown["label_author"].startswith("ada ")
        assert shown["label_note"] == f"accepted from success model {MODEL}, p(success) {words}"
        assert (shown["proposal"]["state"], shown["proposal"]["author"]) == ("accepted", shown["label_author"])
    assert listed(web, "proposal=accepted") == set(ids[:2])
    assert listed(web, "proposal=open") == set(ids[2:])
    again = post(web, "accept", ids[0])["data"][0]
    assert again["error"].startswith("its proposal was accepted by ada ")
    assert len(web.get(f"/v1/episodes/{ids[0]}/labels").json()["data"]) == 2  # the published one, and this one


def test_decisions_are_taken_back(web: httpx.Client, store: EpisodeStore) -> None:
    ids = proposed(store)
    post(web, "accept", ids[0])
    post(web, "reject", ids[1])
    assert listed(web, "proposal=rejected") == {ids[1]}
    assert web.get(f"/v1/episodes/{ids[1]}").json()["success"] is None
    assert post(web, "undo", *ids[:3])["changed"] == 2
    assert listed(web, "proposal=open") == set(ids)
    shown = web.get(f"/v1/episodes/{ids[0]}").json()
    assert (shown["success"], shown["proposal"]["state"]) == (None, "open")
    post(web, "accept", ids[0])
    web.post(f"/v1/episodes/{ids[0]}/labels", json={"success": False, "note": "it fell"})
    assert "labelled again since" in post(web, "undo", ids[0])["data"][0]["error"]
    assert web.get(f"/v1/episodes/{ids[0]}").json()["label_note"] == "it fell"


def test_an_episode_that_a_person_labels_is_proposed_no_longer(web: httpx.Client, store: EpisodeStore) -> None:
    ids = proposed(store)
    web.post(f"/v1/episodes/{ids[0]}/labels", json={"success": False})
    assert listed(web, "proposal=open") == set(ids[1:])
    assert "has been labelled since" in post(web, "accept", ids[0])["data"][0]["error"]
    assert web.get(f"/v1/episodes/{ids[0]}").json()["success"] is False
    assert post(web, "reject", ids[0])["changed"] == 1


def test_of_two_decisions_at_once_one_counts(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_), other = proposed(store), EpisodeStore(store.root)
    append = store.proposals.append

    def late(make: Any) -> Any:
        decide(other, first, "reject", "bob")
        return append(make)

    monkeypatch.setattr(store.proposals, "append", late)
    with pytest.raises(ValueError, match="rejected by bob"):
        decide(store, first, "reject", "ada")
    assert store.proposals.get(first) == other.proposals.get(first)
    assert store.proposals.ids("rejected") == [first]


def test_a_newer_proposal_that_nobody_has_looked_at_is_not_accepted(web: httpx.Client, store: EpisodeStore) -> None:
    first, other, *_ = proposed(store)
    seen = {each: web.get(f"/v1/episodes/{each}").json()["proposal"]["at"] for each in (first, other)}
    store.proposals.append(lambda: {first: Proposal(False, 0.1, "fedcfedcfedc", "2026-02-01T00:00:00.000+00:00")})
    body = {"decision": "accept", "episodes": [first, other], "seen": seen}
    data = web.post("/v1/proposals", json=body).json()["data"]
    assert ["look again" in each["error"] for each in data] == [True, False]
    assert (store.entry(first).summary.success, store.entry(first).label_count) == (None, 0)
    assert first in store.proposals.ids("open")
    with pytest.raises(OutdatedError):
        decide(store, first, "reject", "ada", seen[first])


def test_a_proposal_that_comes_while_one_is_accepted_changes_neither(
    store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *_), other, label = proposed(store), EpisodeStore(store.root), store.label
    newer = Proposal(False, 0.1, "fedcfedcfedc", "2026-02-01T00:00:00.000+00:00")

    def while_labelled(*given: Any, **named: Any) -> Any:
        thread = threading.Thread(target=other.proposals.append, args=(lambda: {} if decided() else {first: newer},))
        thread.start()
        thread.join(0.2)  # long enough to get in where nothing holds it off
        waiting.append(thread)
        return label(*given, **named)

    def decided() -> bool:
        return (found := other.proposals.get(first)) is not None and found.state != "open"

    waiting: list[threading.Thread] = []
    monkeypatch.setattr(store, "label", while_labelled)
    decide(store, first, "accept", "ada")
    waiting[0].join()
    found = store.proposals.get(first)
    assert found is not None
    assert (found.state, found.model, store.entry(first).summary.success) == ("accepted", MODEL, found.success)


def test_only_operators_decide_and_a_wrong_request_changes_nothing(server: Server, store: EpisodeStore) -> None:
    ids = proposed(store)
    with server.web(server.tokens.create("bob", ["trainer"])) as trainer:
        body = {"decision": "accept", "episodes": ids}
        assert trainer.post("/v1/proposals", json=body).status_code == 403
        assert trainer.get("/v1/success-models").json()["data"] == []
    with server.web(server.tokens.create("eve", ["operator"])) as web:
        for wrong in ({"decision": "maybe", "episodes": ids}, {"decision": "accept", "episodes": []}, {"episodes": ids},
                      {"decision": "accept", "episodes": ["../x"]}, body | {"source": "sim"}):  # fmt: skip
            assert web.post("/v1/proposals", json=wrong).status_code == 422, wrong
    assert store.proposals.ids("open") == ids


def test_what_a_crash_cut_off_or_a_hand_changed_counts_for_nothing(store: EpisodeStore) -> None:
    ids, file = proposed(store), store.root / "proposals.jsonl"
    whole = file.read_bytes()
    decide(store, ids[0], "reject", "ada")
    last = file.read_bytes()[len(whole) :]
    for cut in range(0, len(last) - 1, 7):
        file.write_bytes(whole + last[:cut])
        fresh = EpisodeStore(store.root)
        assert fresh.proposals.ids("open") == ids, cut
        decide(fresh, ids[1], "reject", "bob")
        assert fresh.proposals.ids("rejected") == EpisodeStore(store.root).proposals.ids("rejected") == [ids[1]]
    file.write_bytes(whole.replace(b'"success": false', b'"success": true'))
    damaged = EpisodeStore(store.root)
    assert set(damaged.proposals.ids("open")) == set(ids[::2])
    assert len(damaged.proposals.damaged) == len(ids[1::2])
    assert "was changed after it was written" in damaged.degraded[0]


def test_counts_by_model_and_state(store: EpisodeStore) -> None:
    ids = proposed(store)
    decide(store, ids[0], "accept", "ada")
    decide(store, ids[1], "reject", "ada")
    assert store.proposals.counts() == {MODEL: {"open": len(ids) - 2, "accepted": 1, "rejected": 1}}


def test_the_commands_do_the_same(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    ids = proposed(store)
    root = ["--root", str(store.root.parent)]
    assert episodes(["ls", *root, "--proposal", "open"]) == 0
    out = capsys.readouterr().out
    assert {line.split()[0] for line in out.splitlines()} == set(ids)
    assert f"[open: success, 0.900 by {MODEL}]" in out
    assert episodes(["accept", *root, ids[0], ids[2]]) == 0
    assert episodes(["reject", *root, ids[1]]) == 0
    assert episodes(["reject", *root, ids[1]]) == 1
    assert "was rejected by" in capsys.readouterr().err
    assert {each.summary.id for each in store.select(EpisodeSelection(proposal="accepted"))} == {ids[0], ids[2]}
    assert store.summary(ids[0]).success is True
    assert episodes(["reopen", *root, ids[0], ids[1]]) == 0
    assert store.summary(ids[0]).success is None
    assert episodes(["reopen", *root, "f" * 32]) == 1
