"""A loop of a task without a simulator: the robots' gate decides, by as many episodes of the canary as it takes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from loop_driver import JOB, Driver, loop
from loop_world import Fleet, Worth

from pirl_server.config.loop import Loop, LoopCanary
from pirl_server.loop.machine import decide
from pirl_server.loop.state import Phase, Tally
from pirl_server.loop.world import Promote
from pirl_server.registry.acceptance_test import LOOKS
from pirl_server.registry.robot_trial import LEAST_KNOWN


def own(**changes: object) -> Loop:
    return loop(**({"rounds": 1, "evaluation": None, "episodes_per_round": 50} | changes))


def test_without_a_simulator_the_canary_is_extended_until_the_gate_has_enough() -> None:
    """Six episodes say too little: each further look says how many more it takes."""
    driver = Driver(own(), Fleet([Worth(1.0)], base=Worth(0.8)))
    driver.until(Phase.CANARY)
    needs = []
    while driver.state.phase is Phase.CANARY:
        driver.fleet.run(driver.state.canary_robots[0])
        driver.settle()
        if found := re.search(r"it needs (\d+) more if all succeed, about (\d+) for", driver.moves[-1].note):
            assert found[0] in driver.state.trial == driver.state.shown()["trial"]
            needs.append(tuple(map(int, found.groups())))
    assert [more for more, _ in needs] == list(range(needs[0][0], 0, -1)), "every episode succeeds"
    assert len(needs) >= driver.spec.canary.episodes, "which alone were not enough"
    assert all(more <= likely for more, likely in needs)
    assert driver.state.phase is Phase.WATCH
    assert driver.state.canary.episodes == needs[-1][0] + len(needs) == driver.state.canary.successes


def test_without_a_simulator_production_must_be_known_before_a_candidate_is_learnt() -> None:
    driver = Driver(own(episodes_per_round=10, compared_episodes=10), Fleet([Worth(1.0)], base=Worth(0.8)))
    driver.until(Phase.CANARY)
    assert driver.state.collected.episodes == driver.state.compared.episodes == LEAST_KNOWN
    driver = Driver(loop(rounds=1), Fleet([Worth(1.0)], base=Worth(0.8)))
    driver.until(Phase.CANARY)
    assert driver.state.collected.episodes == 10, "with one there is a list"


def test_what_production_is_known_by_is_fixed_while_a_candidate_is_tried() -> None:
    """Else each new episode of production would be another chance to pass."""
    driver = Driver(own(), Fleet([Worth(1.0)], base=Worth(0.8)))
    driver.until(Phase.CANARY)
    compared = driver.state.compared
    for _ in range(60):
        driver.fleet.run(next(robot for robot in driver.fleet.robots if robot not in driver.state.canary_robots))
        driver.settle()
    assert driver.state.compared == compared
    few = replace(driver.state, compared=replace(compared, episodes=LEAST_KNOWN - 1, successes=LEAST_KNOWN - 1))
    move = decide(driver.spec, JOB, few, driver.fleet.view(few))
    assert move is not None
    assert move.state.compared.episodes > LEAST_KNOWN, "it was not known enough"


@pytest.mark.parametrize("gate", ["", "its lists are worn out"])
def test_a_promotion_waits_for_the_gate_itself_and_not_for_ever(gate: str) -> None:
    driver = Driver(own(), Fleet([Worth(1.0)], base=Worth(0.8)))
    driver.until(Phase.CANARY)
    driver.fleet.rejection = gate
    for _ in range(LOOKS + 1):
        if driver.state.phase is Phase.CANARY:
            driver.fleet.run(driver.state.canary_robots[0])
            driver.settle()
    promoted = [each for each in driver.fleet.actions if isinstance(each, Promote)]
    assert len(promoted) == (not gate)
    if gate:
        assert driver.outcomes == ["rejected"]
        assert driver.state.rounds[0].reason == gate
        assert driver.state.rounds[0].canary.episodes == LOOKS


def test_a_candidate_that_can_not_pass_any_more_is_withdrawn() -> None:
    """It fails more often than production, which is no proof yet that it is worse."""
    driver = Driver(own(canary=LoopCanary(episodes=3, alpha=1e-9)), Fleet([Worth(1.0)], base=Worth(0.8)))
    driver.until(Phase.CANARY)
    driver.state = replace(driver.state, compared=Tally(50, 40))
    for number in range(LOOKS):
        if driver.state.phase is Phase.CANARY:
            driver.fleet.worth["v1"] = Worth(float(number % 3 > 0))
            driver.fleet.run(driver.state.canary_robots[0])
            driver.settle()
    (only,) = driver.state.rounds
    assert only.outcome == "rejected"
    assert "not even a version that succeeds by 0.05 more often than production is likely" in only.reason
    assert only.canary.episodes == 109, "no robot's time is wasted: it could pass by luck until the 200th"
    assert (driver.fleet.production, driver.fleet.canary) == ("v0", "")


def test_a_budget_that_is_spent_says_how_many_episodes_are_missing() -> None:
    driver = Driver(own(canary=LoopCanary(episodes=3, max_hours=0.1)), Fleet([Worth(1.0)], base=Worth(0.8)))
    driver.until(Phase.CANARY)
    for _ in range(4):
        driver.fleet.run(driver.state.canary_robots[0])
        driver.settle()
    driver.fleet.pass_time(hours=1)
    driver.settle()
    assert driver.outcomes == ["rejected"]
    assert re.search(
        r"after 0\.1 h; on robots 4 of 4 .* it needs \d+ more if all succeed", driver.state.rounds[0].reason
    )


@pytest.mark.parametrize(("worth", "least", "most"), [(0.6, 0, 2), (0.95, 15, 20)])
def test_without_a_simulator_a_worse_version_is_rarely_promoted_and_a_better_one_mostly(
    worth: float, least: int, most: int
) -> None:
    """Of twenty; production succeeds at 0.8, the margin is 0.15."""
    promoted = 0
    for seed in range(20):
        driver = Driver(own(), Fleet([Worth(worth)], base=Worth(0.8), seed=seed))
        driver.until(Phase.CANARY)
        while driver.state.phase is Phase.CANARY:
            driver.fleet.run(driver.state.canary_robots[0])
            driver.settle()
        promoted += driver.state.phase is Phase.WATCH
    assert least <= promoted <= most
