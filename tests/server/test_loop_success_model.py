"""A loop that names a success model: its outcomes are learnt from and counted, and are evidence for nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from loop_driver import JOB, MODEL, Driver, loop
from loop_world import Fleet, Worth, facts
from pydantic import ValidationError

from pirl_server.config.jobs import FinetuneEpisodes, parse_spec
from pirl_server.config.success import ModelLabels, SuccessModel
from pirl_server.loop.judgement import counts, tally, worse
from pirl_server.loop.machine import decide
from pirl_server.loop.state import LoopState, Phase, Tally
from pirl_server.loop.world import EpisodeFacts, Promote, StartCanary

Judge = Callable[[EpisodeFacts], bool | None]


def driven(judge: Judge, **changes: object) -> Driver:
    """A loop with a fleet whose episodes have no label, and a success model."""
    fleet = Fleet([Worth(1.0)], base=Worth(0.6))
    fleet.judge = judge
    return Driver(loop(**({"success_model": MODEL, "rounds": 1} | changes)), fleet)


def work(driver: Driver, episodes: int, labelled: bool = False) -> None:
    for _ in range(episodes):
        driver.fleet.run("arm-1", labelled)
        driver.settle()


def test_episodes_without_a_label_are_judged_counted_and_learnt_from() -> None:
    driver = driven(lambda each: int(each.id, 16) % 2 == 0)
    driver.settle()
    work(driver, 9)
    assert driver.state.phase is Phase.COLLECT
    work(driver, 1)
    assert driver.state.phase is Phase.PROPOSE
    (spec,) = driver.fleet.jobs.values()
    assert isinstance(spec, SuccessModel)
    assert spec.propose is not None
    assert (spec.model, spec.propose.label, spec.propose.limit) == (MODEL.version, "unlabelled", 500)
    driver.fleet.finish()
    driver.settle()
    learning = list(driver.fleet.jobs.values())[1]
    assert isinstance(learning, FinetuneEpisodes)
    assert learning.success_model == MODEL
    assert "0 of 0 episodes succeeded" in driver.moves[-1].note
    assert f"10 more by success model {MODEL.version}: learning begins" in driver.moves[-1].note
    driver.fleet.finish()
    driver.settle()
    driver.fleet.finish()
    assert (driver.state.model_labels, driver.state.collected) == (10, Tally())


def test_without_a_success_model_they_count_for_nothing() -> None:
    """The control: the same episodes, and the same judge that no one asks."""
    driver = driven(lambda each: True, success_model=None)
    work(driver, 40)
    assert (driver.state.phase, driver.fleet.jobs) == (Phase.COLLECT, {})


def test_what_the_model_is_not_sure_of_does_not_count_and_is_judged_once() -> None:
    driver = driven(lambda each: True if int(each.id, 16) % 2 else None)
    driver.settle()
    work(driver, 10)
    driver.fleet.finish()
    driver.settle()
    assert (driver.state.phase, driver.state.model_labels) == (Phase.COLLECT, 5)
    work(driver, 4)
    assert len(driver.fleet.jobs) == 1, "five and four new ones are not enough"
    work(driver, 1)
    assert driver.state.phase is Phase.PROPOSE
    keys = list(driver.fleet.keys)
    assert len(keys) == 2
    driver.fleet.finish()
    driver.settle()
    work(driver, 6, labelled=True)
    assert driver.state.phase is Phase.LEARN


def test_where_every_episode_keeps_coming_unlabelled_a_round_still_learns() -> None:
    """Robots go on while the model judges: what came meanwhile waits for the next round."""
    driver = driven(lambda each: True)
    driver.settle()
    work(driver, 10)
    driver.fleet.run("arm-1", False)
    driver.fleet.finish()
    driver.fleet.run("arm-1", False)
    driver.settle()
    assert driver.state.phase is Phase.LEARN


def test_a_judging_that_a_kill_repeats_is_the_same_job() -> None:
    driver = driven(lambda each: True)
    driver.settle()
    for _ in range(10):
        driver.fleet.run("arm-1", False)
    before = driver.state
    driver.settle()
    driver.state = before
    driver.fleet.pass_time(seconds=30)
    driver.settle()
    assert (driver.state.phase, len(driver.fleet.jobs)) == (Phase.PROPOSE, 1)


def test_its_outcomes_are_no_evidence() -> None:
    """The model calls every episode of the canary a success: without labels nothing is promoted, and with labels that
    are failures the candidate is withdrawn."""
    sure = facts(0, None, proposed=True)
    assert not counts(sure)
    assert tally([sure] * 30) == Tally(0, 0, 300, 0)
    assert worse(Tally(50, 45), [sure] * 9 + [facts(1, False)] * 3, 20, 0.05)
    driver = driven(lambda each: True)
    driver.settle()
    work(driver, 10)
    for _ in range(4):
        driver.fleet.finish()
        driver.settle()
    assert driver.state.phase is Phase.CANARY
    (robot,) = driver.state.canary_robots
    for _ in range(40):
        driver.fleet.run(robot, labelled=False)
        driver.fleet.episodes[-1] = replace(driver.fleet.episodes[-1], proposed=True)
        driver.settle()
    assert (driver.state.phase, driver.state.canary.episodes) == (Phase.CANARY, 0)
    assert not any(isinstance(action, Promote) for action in driver.fleet.actions)
    (started,) = [action for action in driver.fleet.actions if isinstance(action, StartCanary)]
    assert "10 of the outcomes that it learnt are a success model's" in started.reason


def test_it_reaches_no_target_by_its_own_opinion() -> None:
    driver = driven(lambda each: True, target_success=0.9)
    driver.settle()
    work(driver, 10)
    driver.fleet.finish()
    driver.settle()
    assert (driver.end, driver.state.phase) == ("", Phase.LEARN)


def test_without_a_simulator_labels_of_production_are_still_needed() -> None:
    driver = driven(lambda each: True, evaluation=None)
    driver.settle()
    work(driver, 30)
    assert driver.state.phase is Phase.COLLECT
    work(driver, 20, labelled=True)
    assert driver.state.phase is Phase.PROPOSE


def test_a_failed_judging_ends_the_round() -> None:
    driver = driven(lambda each: True)
    driver.settle()
    work(driver, 10)
    view = driver.fleet.view(driver.state)
    for error, outcome in (("no such model", "failed"), ("", "ended")):
        child = replace(view.child, ended=True, error=error)  # type: ignore[type-var]
        seen = replace(view, child=child, production="v0" if error else "v9")
        move = decide(driver.spec, JOB, driver.state, seen)
        assert move is not None
        assert move.state.rounds[-1].outcome == outcome


def test_a_state_of_before_is_read_and_the_model_is_named_by_its_version() -> None:
    assert LoopState("t", "t").model_labels == 0
    with pytest.raises(ValidationError, match="version"):
        ModelLabels(version="latest")
    with pytest.raises(ValueError, match="did you mean min_confidence"):
        parse_spec({"kind": "loop", "task": "t", "evaluation": None,
                    "success_model": {"version": "5f0c2a9d71be", "confidence": 0.9}})  # fmt: skip
