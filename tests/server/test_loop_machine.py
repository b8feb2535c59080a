"""The loop's decisions, driven through fleets whose versions are known: what never happens, and what ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_driver import JOB, MODEL, Driver, loop
from loop_world import Fleet, Worth

from pirl_server.config.loop import Loop, LoopEvaluation
from pirl_server.config.training import EpisodesConfig
from pirl_server.loop.machine import decide, leave
from pirl_server.loop.state import LoopState, Phase
from pirl_server.loop.world import Action, Child, Promote, RejectedError, RollBack, StartCanary, Withdraw

BROKEN = Worth(success=0.9, robots=0.0)
"""fine in the simulator, useless on robots"""
TROUBLE = ["none", "fails", "interrupted", "few", "promote", "recall", "pause", "unlabelled"]


def test_a_better_version_is_promoted_and_the_next_round_builds_on_it() -> None:
    driver = Driver(loop(), Fleet([Worth(1.0), Worth(1.0)], base=Worth(0.6)))
    driver.live()
    assert driver.outcomes[0] == "promoted"
    assert driver.state.rounds[1].base == driver.state.rounds[0].candidate
    learnt = [spec.base for spec in driver.fleet.jobs.values() if hasattr(spec, "base")]
    assert learnt[:2] == ["v0", "v1"]
    assert driver.end == "all 3 rounds are done"


@pytest.mark.parametrize("evaluation", [None, LoopEvaluation(episodes=100)])
def test_a_version_that_fails_on_robots_leaves_the_canary_within_three_episodes(
    evaluation: LoopEvaluation | None,
) -> None:
    spec = loop(rounds=1, evaluation=evaluation, episodes_per_round=20)
    driver = Driver(spec, Fleet([BROKEN], base=Worth(0.9), seed=3))
    driver.live()
    assert driver.outcomes == ["worse"]
    assert len([each for each in driver.fleet.episodes if each.version == "v1"]) <= 3
    assert len(driver.fleet.driven["v1"]) == 1
    assert (driver.fleet.production, driver.fleet.canary) == ("v0", "")


@pytest.mark.parametrize(("worth", "why"), [(Worth(0.9, fault=1.0), "emergency stop"), (Worth(0.9, altered=0.9), "%")])
def test_a_fault_and_altered_actions_end_a_canary_whatever_the_outcomes(worth: Worth, why: str) -> None:
    driver = Driver(loop(rounds=1), Fleet([worth], base=Worth(0.3)))
    driver.live()
    assert driver.outcomes == ["worse"]
    assert why in driver.state.rounds[0].reason
    assert len([each for each in driver.fleet.episodes if each.version == "v1"]) <= 2


def test_actions_that_are_not_finite_end_a_canary_without_an_episode() -> None:
    driver = Driver(loop(rounds=1), Fleet([Worth(0.9)]))
    driver.until(Phase.CANARY)
    driver.fleet.not_finite = 1
    driver.settle()
    assert driver.outcomes == ["worse"]
    assert "not finite" in driver.state.rounds[0].reason


def test_a_version_that_is_worse_in_the_simulator_never_reaches_a_robot() -> None:
    driver = Driver(loop(), Fleet([Worth(0.4)], base=Worth(0.9)))
    driver.live()
    assert driver.outcomes == ["rejected"] * 3
    assert set(driver.fleet.driven) == {"v0"}


@pytest.mark.parametrize("evaluation", [None, LoopEvaluation(episodes=100)])
def test_a_version_that_held_out_episodes_speak_against_never_reaches_a_robot(
    evaluation: LoopEvaluation | None,
) -> None:
    fleet = Fleet([Worth(1.0)], base=Worth(0.5))
    fleet.worth["v1"] = Worth(1.0)
    against = Child(ended=True, version="v1", offline="error 9 against 1", offline_refusal="v1: error 9 against 1")
    fleet.errors = [against]
    driver = Driver(loop(rounds=1, evaluation=evaluation), fleet)
    driver.live()
    assert driver.outcomes == ["rejected"]
    assert driver.state.rounds[0].reason == "v1: error 9 against 1"
    assert driver.state.rounds[0].offline == "error 9 against 1"
    assert "v1" not in driver.fleet.driven


def test_what_held_out_episodes_say_is_in_the_reason_of_a_promotion() -> None:
    fleet = Fleet([Worth(1.0)], base=Worth(0.5))
    fleet.worth["v1"] = Worth(1.0)
    fleet.errors = [Child(ended=True, version="v1", offline="error 1 against 1")]
    driver = Driver(loop(rounds=1, evaluation=None), fleet)
    driver.live()
    (promotion,) = [action for action in driver.fleet.actions if isinstance(action, Promote)]
    assert "no simulator for this task; error 1 against 1; canary: " in promotion.reason


def test_each_round_takes_states_of_its_own() -> None:
    driver = Driver(loop(), Fleet([Worth(0.4)], base=Worth(0.9)))
    driver.live()
    firsts = sorted({first for _, first in driver.fleet.outcomes})
    assert firsts == [0, 100, 200]
    assert all(
        {("v0", first), (f"v{index + 1}", first)} <= set(driver.fleet.outcomes) for index, first in enumerate(firsts)
    )


def test_a_version_that_turns_bad_after_its_promotion_is_rolled_back() -> None:
    driver = Driver(loop(rounds=1, watch_episodes=20, episodes_per_round=30), Fleet([Worth(0.95)], base=Worth(0.9)))
    driver.until(Phase.WATCH)
    driver.fleet.worth["v1"] = Worth(0.0)
    driver.live()
    assert driver.outcomes == ["rolled back"]
    assert driver.fleet.production == "v0"
    assert isinstance(driver.moves[-1].action, RollBack)
    assert sum(each.version == "v1" and not each.success for each in driver.fleet.episodes) <= 4


def test_the_rule_of_the_robots_own_task_needs_no_list() -> None:
    driver = Driver(loop(rounds=1, evaluation=None), Fleet([Worth(1.0)], base=Worth(0.5)))
    driver.live()
    assert driver.outcomes == ["promoted"]
    (promotion,) = [action for action in driver.fleet.actions if isinstance(action, Promote)]
    assert f"loop {JOB}, round 0" in promotion.reason
    assert "not worse by 0.15, alpha 0.05" in promotion.reason


def test_a_failed_job_ends_the_round_and_the_next_one_collects() -> None:
    fleet = Fleet([Worth(1.0)], base=Worth(0.5), errors=[Child(ended=True, error="out of memory")])
    driver = Driver(loop(rounds=2), fleet)
    driver.live()
    assert driver.outcomes == ["failed", "promoted"]
    assert driver.state.rounds[0].reason == "out of memory"


def test_too_few_usable_episodes_collect_on_and_not_for_ever() -> None:
    few = Child(ended=True, error="9 labelled episodes, at least 10 are needed", too_few_episodes=True)
    fleet = Fleet([Worth(1.0)], base=Worth(0.5), errors=[few])
    driver = Driver(loop(rounds=1), fleet)
    driver.live()
    assert driver.outcomes == ["promoted"]
    assert driver.state.rounds[0].collected.episodes == 20
    driver = Driver(loop(rounds=1), Fleet([Worth(1.0)], errors=[few] * 9))
    driver.live()
    assert driver.outcomes == ["failed"]
    assert driver.state.rounds[0].collected.episodes == 40


def test_stop_rules_end_it() -> None:
    driver = Driver(loop(target_success=0.75), Fleet([Worth()], base=Worth(1.0)))
    driver.live()
    assert "target_success" in driver.end
    assert driver.fleet.jobs == {}
    driver = Driver(loop(patience=1), Fleet([Worth(0.1)], base=Worth(0.9)))
    driver.live()
    assert (driver.outcomes, driver.end) == (["rejected"], "no promotion in 1 rounds, patience is 1")
    driver = Driver(loop(on_worse="stop"), Fleet([BROKEN], base=Worth(0.9)))
    driver.live()
    assert driver.outcomes == ["worse"]
    driver = Driver(loop(max_robot_minutes=2.0), Fleet([Worth(1.0)]))
    driver.live()
    assert "max_robot_minutes" in driver.end
    assert len(driver.fleet.episodes) == 6, "20 s each"


def test_a_budget_that_ends_during_a_canary_takes_it_back() -> None:
    driver = Driver(loop(max_robot_minutes=4.0), Fleet([Worth(1.0)], robots=("arm-1",), base=Worth(0.5)))
    driver.live()
    assert (driver.fleet.production, driver.fleet.canary) == ("v0", "")
    assert driver.outcomes == ["ended"]


def test_a_canary_that_brings_no_label_is_taken_back_in_time() -> None:
    driver = Driver(loop(rounds=1), Fleet([Worth(1.0)], base=Worth(0.5)))
    driver.until(Phase.CANARY)
    driver.fleet.run(driver.state.canary_robots[0], labelled=False)
    driver.fleet.pass_time(hours=23)
    driver.settle()
    assert driver.state.phase is Phase.CANARY
    driver.fleet.pass_time(hours=2)
    driver.settle()
    assert (driver.outcomes, driver.fleet.canary) == (["rejected"], "")


def test_pinned_robots_try_nothing() -> None:
    driver = Driver(loop(), Fleet([Worth(1.0)], base=Worth(0.5)))
    driver.until(Phase.EVALUATE_CANDIDATE)
    driver.fleet.finish()
    view = driver.fleet.view(driver.state)
    busiest = decide(driver.spec, JOB, driver.state, view)
    assert busiest is not None
    assert isinstance(busiest.action, StartCanary)
    pinned = decide(driver.spec, JOB, driver.state, replace(view, pinned=frozenset(busiest.action.robots)))
    assert pinned is not None
    assert isinstance(pinned.action, StartCanary)
    assert pinned.action.robots != busiest.action.robots
    none = decide(driver.spec, JOB, driver.state, replace(view, pinned=frozenset(driver.fleet.robots)))
    assert none is not None
    assert isinstance(none.action, Withdraw)


@pytest.mark.parametrize("phase", list(Phase))
def test_another_promotion_ends_the_round_in_every_phase(phase: Phase) -> None:
    """But while collecting, where its episodes are counted from then on."""
    driver = Driver(loop(success_model=MODEL), Fleet([Worth(1.0)], base=Worth(0.6)))
    driver.until(phase)
    driver.fleet.worth["other"] = Worth(0.6)
    driver.fleet.production, driver.fleet.previous = "other", ["v0"]
    driver.settle()
    driver.fleet.finish()
    driver.settle()
    assert driver.outcomes == ([] if phase is Phase.COLLECT else ["ended"])
    assert (driver.state.base, driver.fleet.production, driver.fleet.canary) == ("other", "other", "")
    driver.live()
    assert driver.end


def test_a_rejected_canary_and_a_rejected_promotion_end_the_round() -> None:
    for kind in (StartCanary, Promote):
        driver = Driver(loop(rounds=1), Fleet([Worth(1.0)], base=Worth(0.5)))

        def check(action: Action, kind: type[Action] = kind) -> None:
            if isinstance(action, kind):
                raise RejectedError("beyond the limit")

        driver.fleet.before = check
        driver.live()
        assert driver.outcomes == ["rejected"]
        assert (driver.fleet.production, driver.fleet.canary) == ("v0", "")


@pytest.mark.parametrize("phase", list(Phase))
def test_a_paused_loop_ends_its_phase_and_stays(phase: Phase) -> None:
    driver = Driver(loop(success_model=MODEL), Fleet([Worth(1.0)], base=Worth(0.6)))
    driver.until(phase)
    driver.fleet.paused, before = True, len(driver.fleet.actions)
    for tick in range(60):
        driver.settle()
        driver.fleet.run(driver.fleet.robots[tick % 3])
        driver.fleet.finish()
    assert (driver.state.phase, driver.state.round) == (phase, 0)
    assert len(driver.fleet.actions) == before
    driver.fleet.paused = False
    driver.settle()
    assert driver.state.phase is not phase or driver.state.round > 0


def test_a_paused_loop_still_takes_back_and_rolls_back() -> None:
    driver = Driver(loop(), Fleet([BROKEN], base=Worth(0.9)))
    driver.until(Phase.CANARY)
    driver.fleet.paused = True
    for _ in range(4):
        driver.fleet.run(driver.state.canary_robots[0] if driver.state.canary_robots else "arm-1")
        driver.settle()
    assert (driver.outcomes, driver.fleet.canary) == (["worse"], "")


@pytest.mark.parametrize("phase", list(Phase))
def test_leaving_takes_back_the_job_and_the_canary(phase: Phase) -> None:
    driver = Driver(loop(success_model=MODEL), Fleet([Worth(1.0)], base=Worth(0.6)))
    driver.until(phase)
    production = driver.fleet.production
    for action in leave(driver.state, "cancelled"):
        driver.fleet.act(action)
    assert (driver.fleet.working, driver.fleet.canary, driver.fleet.production) == ([], "", production)


WORTHS = [
    Worth(0.2), Worth(0.6), Worth(0.9), Worth(1.0), BROKEN, Worth(0.9, altered=0.8), Worth(0.9, fault=0.5)
]  # fmt: skip
LIVES = {
    "seed": st.integers(0, 2**32),
    "base": st.sampled_from([0.3, 0.6, 0.9, 1.0]),
    "learnt": st.lists(st.sampled_from(WORTHS), min_size=1, max_size=4),
    "robots": st.integers(1, 4),
    "trouble": st.lists(st.sampled_from(TROUBLE), max_size=30),
}


@settings(max_examples=100)
@given(**LIVES)
def test_whatever_happens_it_ends_and_no_rule_is_broken(
    seed: int, base: float, learnt: list[Worth], robots: int, trouble: list[str]
) -> None:
    spec = loop(evaluation=LoopEvaluation(episodes=50), watch_episodes=5)
    live_through(spec, Fleet(list(learnt), tuple(f"arm-{n}" for n in range(robots)), Worth(base), seed), trouble)


@settings(max_examples=15)  # the tests on robots' episodes are slow at first, for each record of production
@given(**LIVES)
def test_whatever_happens_without_a_simulator_it_ends_and_no_rule_is_broken(
    seed: int, base: float, learnt: list[Worth], robots: int, trouble: list[str]
) -> None:
    spec = loop(evaluation=None, watch_episodes=5, success_model=MODEL if seed % 2 else None)
    live_through(spec, Fleet(list(learnt), tuple(f"arm-{n}" for n in range(robots)), Worth(base), seed), trouble)


def live_through(spec: Loop, fleet: Fleet, trouble: list[str]) -> None:
    """Let it live, and look at what is left."""
    driver = Driver(spec, fleet)
    for event in trouble:
        driver.settle()
        _disturb(fleet, event)
        for robot in fleet.robots:
            fleet.run(robot, labelled=event != "unlabelled")
        fleet.finish()
    fleet.paused = False
    driver.live()
    assert len(driver.state.rounds) <= spec.rounds
    assert fleet.canary == "", "no canary outlives its loop"
    assert fleet.working == []
    promoted = {action.version for action in fleet.actions if isinstance(action, Promote)}
    for version in fleet.worth:
        if version not in promoted and version.startswith("v") and version != "v0":
            assert len(fleet.driven.get(version, ())) <= spec.canary.count
    broken = {version for version, worth in fleet.worth.items() if worth == BROKEN}
    assert fleet.base.success < 0.6 or not broken & promoted, "production succeeds, and it never does"


def _disturb(fleet: Fleet, event: str) -> None:
    if event == "fails":
        fleet.errors.append(Child(ended=True, error="a bug"))
    elif event == "interrupted":
        fleet.errors.append(Child(ended=True, error="server restarted while the job ran", interrupted=True))
    elif event == "few":
        fleet.errors.append(Child(ended=True, error="too few", too_few_episodes=True))
    elif event == "promote":
        name = f"other-{len(fleet.worth)}"
        fleet.worth[name] = fleet.worth[fleet.production]
        fleet.previous.append(fleet.production)
        fleet.production = name
    elif event == "recall":
        fleet.canary, fleet.canary_robots = "", ()
    elif event == "pause":
        fleet.paused = not fleet.paused


def test_a_loop_that_could_never_learn_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"5, is below config\.min_episodes 10: no round could learn"):
        loop(episodes_per_round=5, config=EpisodesConfig(min_episodes=10))
    with pytest.raises(ValueError, match="take more than the 10000 initial states of a list: set rounds to 50"):
        loop(rounds=51, evaluation=LoopEvaluation(episodes=200))


def test_the_state_says_what_it_shows() -> None:
    driver = Driver(loop(rounds=1), Fleet([Worth(1.0)], base=Worth(0.5)))
    driver.live()
    shown = driver.state.shown()
    assert shown["promotions"] == 1
    only = shown["rounds"][0]
    assert only["outcome"] == "promoted"
    rates, canary, compared = only["rates"], only["canary"], only["compared"]
    assert (rates["states"], rates["candidate"]) == (100, 100)
    assert rates["p_better"] < 1e-6 < rates["base"]
    assert canary["successes"] == canary["episodes"] == 6
    assert compared["episodes"] >= 10
    assert isinstance(driver.state, LoopState)
