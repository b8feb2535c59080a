"""Which evaluations the promotion gate counts, what it says of the others, and robots' episodes in their place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_contract import Contract
from pirl_server.registry.acceptance_test import crossing, most_failures
from pirl_server.registry.evaluation import Evaluation, list_hash
from pirl_server.registry.gate_rule import GateRule
from pirl_server.registry.promotion import Promoter, PromotionRefusedError
from pirl_server.registry.promotion_gate import check_gate
from pirl_server.registry.robot_trial import LEAST_KNOWN, RobotEvidence, judge_robots
from pirl_server.registry.versions import Registry

RULE = GateRule()
SETUP = {"simulator": "mani-skill 3.0.1", "pirl": "1.0+aaaaaaaa", "device": "cpu float32"}


@pytest.fixture
def registry(tmp_path: Path, contract: Contract) -> Registry:
    """v1 in production, v2 learnt from it, v3 from v2."""
    source = tmp_path / "checkpoint"
    source.mkdir()
    (source / "card.json").write_text('{"task": "push"}')
    made = Registry(tmp_path / "models")
    for version, parent in (("v1", None), ("v2", "v1"), ("v3", "v2")):
        made.add(version, source, contract, parent=parent)
    made.point("production", "v1", "test", "start")
    return made


def result(version: str, rate: float, first: int = 0, count: int = 100, number: int = 0, **more: object) -> Evaluation:
    outcomes = tuple(at < round(rate * count) for at in range(count))
    hash_ = list_hash("push", [number, *range(first, first + count)])
    made = Evaluation(
        version, "push", hash_, count, sum(outcomes), f"2026-01-{1 + first % 27:02}", job=f"job of {version}",
        outcomes=outcomes, list=number, first=first, setup=SETUP,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def put(registry: Registry, *found: Evaluation) -> None:
    for each in found:
        registry.evaluations.put(each)


def reasons(registry: Registry, version: str = "v2") -> str:
    return " | ".join(check_gate(registry, "v1", version).refusals)


def test_a_better_version_passes_and_one_that_is_worse_by_the_margin_does_not(registry: Registry) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.7))
    assert not reasons(registry)
    put(registry, result("v2", 0.55))
    assert "v2 succeeded 55 of 100 times and v1 60" in reasons(registry)
    assert "states 0 to 99" in reasons(registry)


def test_an_equal_version_on_a_short_list_learns_how_many_states_it_needs(registry: Registry) -> None:
    """A fifth of the states changes sides, as many to the better as to the worse."""
    before = result("v1", 0.6)
    flipped = tuple(not each if at in (*range(10), *range(60, 70)) else each for at, each in enumerate(before.outcomes))
    put(registry, before, result("v2", 0.6, outcomes=flipped))
    assert "that it is not worse by 0.05 is not shown" in reasons(registry)
    assert "on about 500 states" in reasons(registry)
    assert check_gate(registry, "v1", "v2", GateRule(margin=0.15)).allowed


def test_evaluations_of_different_setups_are_not_paired_and_both_are_named(registry: Registry) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.9, setup=SETUP | {"simulator": "mani-skill 3.0.2"}))
    said = reasons(registry)
    assert "no evaluation on the same fixed list" in said
    assert "v1 with device cpu float32, pirl 1.0+aaaaaaaa, simulator mani-skill 3.0.1" in said
    assert "v2 with device cpu float32, pirl 1.0+aaaaaaaa, simulator mani-skill 3.0.2" in said
    put(registry, result("v1", 0.6, setup={}))
    assert "v1 with one that was not recorded" in reasons(registry)
    put(registry, result("v2", 0.9, setup={}))
    assert not reasons(registry), "as both were stored before it was kept"


def test_evaluations_without_outcomes_are_not_paired(registry: Registry) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.9, outcomes=()))
    assert "the evaluation of v2 on list 0, states 0 to 99 holds no outcome of each state" in reasons(registry)


def test_states_that_were_tuned_on_do_not_count_whichever_version_it_was(registry: Registry) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.9))
    assert not reasons(registry)
    put(registry, result("v3", 0.9, first=90, count=20, purpose="tuning"))
    assert "list 0, states 0 to 99 of push was used for tuning (list 0, states 90 to 109, version v3" in reasons(
        registry
    )
    put(registry, result("v1", 0.6, first=200), result("v2", 0.9, first=200))
    assert not reasons(registry), "other states of the list do"
    put(registry, result("v2", 0.9, first=200, purpose="tuning"))
    put(registry, result("v2", 0.9, first=200))
    assert "states 200 to 299 of push was used for tuning" in reasons(registry), "nothing replaces that it was"
    put(registry, result("v1", 0.6, number=3), result("v2", 0.9, number=3))
    assert not reasons(registry), "another list does"


def test_states_are_pooled_over_lists_and_counted_once(registry: Registry) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.6))
    put(registry, result("v1", 0.6, first=50), result("v2", 0.6, first=50))
    (judged,) = check_gate(registry, "v1", "v2").judged
    assert judged.test.episodes == 150
    assert len(judged.pool.comparisons) == 2


def promote(registry: Registry, version: str = "v2") -> str:
    promoter = Promoter(registry, lambda name: None)
    try:
        promoter.promote(version, "ada")
    except PromotionRefusedError as refused:
        return str(refused)
    promoter.rollback("ada")
    return ""


def test_a_list_serves_a_candidate_twice_and_the_same_evidence_as_often_as_asked(registry: Registry) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.55))
    for _ in range(5):
        assert "v2 succeeded 55" in promote(registry)
    put(registry, result("v1", 0.6, count=120), result("v2", 0.58, count=120))
    assert "of 120 times" in promote(registry)
    put(registry, result("v1", 0.6, count=140), result("v2", 0.9, count=140))
    for _ in range(2):
        assert "states 0 to 99 of push was used by the gate for v2 2 times" in promote(registry)
    assert check_gate(registry, "v1", "v2").refusals, "and so says a look that changes nothing"


def test_fresh_states_after_a_rejection_are_no_further_use_of_the_old_ones(registry: Registry) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.55))
    assert promote(registry)
    put(registry, result("v1", 0.6, first=500, count=400), result("v2", 0.7, first=500, count=400))
    assert not promote(registry)
    assert not promote(registry)


def test_states_that_judged_a_parent_do_not_judge_the_child(registry: Registry) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.55), result("v3", 0.9))
    assert not reasons(registry, "v3"), "negative control"
    assert promote(registry, "v2")
    assert "has judged v2, which v3 was trained from" in reasons(registry, "v3")
    put(registry, result("v1", 0.6, first=100), result("v3", 0.9, first=100))
    assert not reasons(registry, "v3")


def test_an_evaluation_of_an_earlier_revision_is_read_but_not_counted(registry: Registry, tmp_path: Path) -> None:
    old = {"version": "v1", "task": "push", "list_hash": "a" * 16, "episodes": 100, "successes": 60, "created": "2026"}
    (tmp_path / "models" / "evaluations" / f"v1-{'a' * 16}.json").write_text(json.dumps(old))
    (found,) = registry.evaluations.of("v1")
    assert (found.list, found.purpose, found.setup, found.outcomes) == (None, "gate", {}, ())
    put(registry, replace(found, version="v2"))
    assert "the evaluation of v1 on list aaaaaaaaaaaaaaaa holds no outcome" in reasons(registry)


def test_a_damaged_record_of_uses_is_named(registry: Registry, tmp_path: Path) -> None:
    put(registry, result("v1", 0.6), result("v2", 0.9))
    path = tmp_path / "models" / "gate" / "v2.json"
    path.write_text("[{}]")
    with pytest.raises(ValueError, match=str(path)):
        check_gate(registry, "v1", "v2")


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"margin": 0.3}, {"robot_margin": 0.21}, {"alpha": 0.0}])
def test_a_rule_beyond_the_bounds_is_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GateRule(**wrong)


def judged(known: tuple[int, int], tried: Sequence[bool]) -> str:
    trial = judge_robots(RobotEvidence(*known, tuple(tried)), RULE)
    return "accepted" if trial.accepted else "rejected" if trial.rejected else str(trial)


def test_robots_stand_in_where_no_list_can_decide(registry: Registry) -> None:
    def seen(tried: Sequence[bool]) -> RobotEvidence:
        return RobotEvidence(45, 50, tuple(tried))

    for tried, part in (
        ([True] * 5, "needs 12 more if all succeed, about"),
        ([False] * 3, "it is worse"),
    ):
        (missing, said) = check_gate(registry, "v1", "v2", RULE, lambda *_, tried=tried: seen(tried)).refusals
        assert "no evaluation on the same fixed list" in missing
        assert part in said
    found = check_gate(registry, "v1", "v2", RULE, lambda *_: seen([True] * 17))
    assert found.allowed
    assert found.robots is not None
    put(registry, result("v1", 0.6), result("v2", 0.5))
    assert not check_gate(registry, "v1", "v2", RULE, lambda *_: seen([True] * 17)).allowed, "lists come first"


def test_a_decision_on_robots_is_final_and_little_knowledge_decides_nothing() -> None:
    assert judged((45, 50), [True] * 17 + [False] * 20) == "accepted"
    assert judged((45, 50), [False] * 3 + [True] * 60) == "rejected"
    assert f"production needs {LEAST_KNOWN - 10} more labelled episodes" in judged((10, 10), [True] * 100)


def test_a_trial_is_hopeless_when_a_better_version_would_hardly_pass_any_more() -> None:
    """Decided by hand, it may still pass: what is given up is a robot's time, not the rule."""
    tried = tuple(number % 3 > 0 for number in range(109))
    before, found, later = (
        judge_robots(RobotEvidence(40, 50, each), RULE) for each in (tried[:-1], tried, tried + (True,) * 40)
    )
    assert [each.hopeless for each in (before, found, later)] == [False, True, False]
    assert "not even a version that succeeds by 0.05 more often" in str(found)
    assert found.more_successes == 64
    limits = most_failures(40, 50, RULE.robot_margin, RULE.alpha)
    rest = tuple(max(-1, limit - tried.count(False)) for limit in limits[len(tried) :])
    assert crossing(rest, np.array([1 - 0.85]), np.ones(1))[-1] < 0.02
    for good in ((40, 50), (20, 20), (0, 20), (5, 50)):
        nothing = judge_robots(RobotEvidence(*good, ()), RULE)
        assert not nothing.hopeless, "not before its first episode, however little may be shown of such a production"
    assert not judge_robots(RobotEvidence(0, 20, (False,) * 3), RULE).hopeless, "as production"


@settings(max_examples=4)
@given(st.integers(LEAST_KNOWN, 100).flatmap(lambda n: st.tuples(st.integers(n // 2, n), st.just(n))), st.data())
def test_what_is_said_to_be_missing_is_missing(known: tuple[int, int], data: st.DataObject) -> None:
    tried = data.draw(st.lists(st.booleans(), max_size=30))
    trial = judge_robots(RobotEvidence(*known, tuple(tried)), RULE)
    if trial.more_successes is None:
        return
    enough = [*tried, *[True] * trial.more_successes]
    assert judged(known, enough) == "accepted"
    assert judged(known, enough[:-1]) != "accepted"


@pytest.mark.parametrize(("rate", "known"), [(0.9, 50), (0.7, 50)])
def test_a_version_that_is_worse_by_the_margin_is_accepted_rarely(rate: float, known: int) -> None:
    """Exactly, averaged over what production's episodes may have been; an equal one mostly is."""
    worse = equal = 0.0
    for successes in range(known + 1):
        weight = np.exp(
            sum(np.log(range(known - successes + 1, known + 1))) - sum(np.log(range(1, successes + 1)))
        ) * rate**successes * (1 - rate) ** (known - successes)  # fmt: skip
        if weight > 1e-4:
            limits = most_failures(successes, known, RULE.robot_margin, RULE.alpha, 60)
            worse += weight * crossing(limits, np.array([1 - rate + RULE.robot_margin]), np.ones(1))[-1]
            equal += weight * crossing(limits, np.array([1 - rate]), np.ones(1))[-1]
    assert worse <= 0.06
    assert equal > 5 * worse
