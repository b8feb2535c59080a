"""Outcomes of a success model in a job that names it: who comes first, and what they are no part of."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from toy_arm import CONTRACT, INSTRUCTIONS, Heard
from toy_log import GOOD, episode

from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.jobs import FinetuneEpisodes, parse_spec
from pirl_server.config.success import ModelLabels
from pirl_server.episodes.datasets import Dataset, Frozen
from pirl_server.episodes.model_outcomes import MODEL_SOURCE, model_outcome
from pirl_server.episodes.proposal_decisions import decide
from pirl_server.episodes.proposals import Proposal
from pirl_server.episodes.store import EpisodeStore
from pirl_server.training.episode_report import Densities, report
from pirl_server.training.episode_selection import Selected, select, select_frozen
from pirl_server.training.held_out import hold_out

MODEL = ModelLabels(version="5f0c2a9d71be", min_confidence=0.9)
AT = "2026-01-02T00:00:00.000+00:00"


def name(number: int) -> str:
    return f"{number:032x}"


def propose(store: EpisodeStore, probabilities: dict[int, float], model: str = MODEL.version) -> None:
    made = {name(each): Proposal(p >= 0.5, p, model, AT) for each, p in probabilities.items()}
    store.proposals.append(lambda: made)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Six labelled episodes and ten without a label."""
    made = EpisodeStore(tmp_path / "episodes")
    for number in range(16):
        made.write(episode(number, number % 2 == 0 if number < 6 else None, GOOD))
    return made


def chosen(store: EpisodeStore, model: ModelLabels | None = MODEL) -> Selected:
    return select(store, EpisodeSelection(), CONTRACT, INSTRUCTIONS, Heard(), model)


def outcomes(found: Selected) -> dict[int, tuple[bool | None, str]]:
    return {int(each.info.id, 16): (each.info.success, each.info.label_source) for each in found.log.facts}


def test_only_what_has_no_label_gets_an_outcome_of_the_model_that_is_named(store: EpisodeStore) -> None:
    propose(store, {0: 0.01, 1: 0.99, 6: 0.95, 7: 0.05, 8: 0.85})
    propose(store, {9: 0.99}, "aaaaaaaaaaaa")
    found = outcomes(chosen(store))
    assert found[0] == (True, "operator"), "a label wins over what the model is sure of"
    assert found[1] == (False, "operator")
    assert found[6] == (True, MODEL_SOURCE)
    assert found[7] == (False, MODEL_SOURCE)
    assert found[8] == (None, ""), "not sure enough"
    assert found[9] == (None, ""), "another model's"
    assert found[10] == (None, ""), "never judged"
    assert not any(source == MODEL_SOURCE for _, source in outcomes(chosen(store, None)).values()), "off by default"
    assert FinetuneEpisodes(task="t").success_model is None


def test_what_a_person_decided_or_said_later_comes_first(store: EpisodeStore) -> None:
    propose(store, dict.fromkeys(range(6, 11), 0.99))
    decide(store, name(6), "reject", "ada")
    decide(store, name(7), "accept", "ada")
    store.label(name(8), False, "operator", author="ada")
    store.label(name(9), False, "operator", author="ada")
    store.label(name(9), None, "", author="ada")
    found = outcomes(chosen(store))
    assert found[6] == (None, "")
    assert found[7] == (True, "operator")
    assert found[8] == (False, "operator")
    assert found[9] == (None, ""), "a label that was taken back is no invitation"
    assert found[10] == (True, MODEL_SOURCE), "the control"


def test_an_episode_that_a_fault_ended_is_not_judged(store: EpisodeStore) -> None:
    for number, reason in ((20, "fault"), (21, "operator")):
        made = episode(number, None, GOOD)
        store.write(replace(made, info=replace(made.info, end_reason=reason)))
    propose(store, {20: 0.99, 21: 0.99})
    assert model_outcome(store, name(20), MODEL) is None
    assert model_outcome(store, name(21), MODEL) is True


def test_nothing_is_stored_as_a_label(store: EpisodeStore) -> None:
    propose(store, {6: 0.95})
    chosen(store)
    entry = store.entry(name(6))
    assert (entry.summary.success, entry.labelled, entry.label_count) == (None, "", 0)
    proposal = store.proposals.get(name(6))
    assert proposal is not None
    assert proposal.state == "open"


def test_the_report_says_how_many(store: EpisodeStore) -> None:
    propose(store, {6: 0.95, 7: 0.05, 8: 0.97})
    made = report(chosen(store), None, 1, Densities())
    assert made.model_labels == 3
    assert made.label_sources == {"operator": 6, MODEL_SOURCE: 3}
    assert made.outcomes == {"success": 5, "failure": 4, "unlabelled": 7}
    assert "3 of 9 labels are what a success model proposed, not what a person said" in made.warnings
    plain = report(chosen(store, None), None, 1, Densities())
    assert plain.model_labels == 0
    assert not any("success model" in each for each in plain.warnings)


def test_none_of_them_is_held_out_as_evidence(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "episodes")
    for number in range(60):
        store.write(episode(number, number % 2 == 0 if number < 30 else None, GOOD))
    propose(store, {number: 0.99 if number % 2 else 0.01 for number in range(30, 60)})
    split = hold_out(chosen(store).log, 0.5, 4)
    assert len(split.held_out) == 16
    assert {each.info.label_source for each in split.held_out.facts} == {"operator"}
    assert {int(each.info.id, 16) for each in split.learnt.facts} >= set(range(30, 60))


def test_another_attempt_learns_from_the_same_outcomes(store: EpisodeStore) -> None:
    """A job pins what it chose: what people decide meanwhile is for the next one."""
    propose(store, {6: 0.95, 7: 0.05})
    first = chosen(store)
    rows = [
        Frozen(each.info.id, each.digest, each.info.success, each.info.label_source, each.info.created)
        for each in first.log.facts
    ]
    decide(store, name(6), "reject", "ada")
    pinned = Dataset("of this job", AT, "", EpisodeSelection(), tuple(rows))
    again = select_frozen(store, pinned, CONTRACT, INSTRUCTIONS, False, Heard())
    assert outcomes(again) == outcomes(first)
    assert again.log.digest == first.log.digest
    assert [each.info.success for each in again.log] == [each.info.success for each in first.log]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"dataset": "d"}, "dataset 'd' has labels of its own: leave out success_model"),
        ({"select": {"label": "success"}}, "select.label 'success': success_model is for episodes without a label"),
    ],
)
def test_a_model_beside_labels_that_are_chosen_otherwise_is_rejected(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_spec({"kind": "finetune_episodes", "task": "t", "success_model": asdict(MODEL)} | fields)
