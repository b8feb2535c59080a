"""What a loop needs of the server: step counts, exploring episodes, withdrawing, outcomes of evaluations, facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from deployed_world import World
from loop_world import facts
from test_episode_store import make_episode

from pirl_contract import Alteration, Contract, ControlSource
from pirl_server.config.loop import Loop, LoopCanary
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.step_counts import StepCounts, step_counts
from pirl_server.episodes.store import EpisodeStore
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.loop.judgement import compared_with, tally, worse
from pirl_server.loop.machine import begin, decide
from pirl_server.loop.robot_episodes import robot_evidence
from pirl_server.loop.server_world import ServerWorld
from pirl_server.loop.state import LoopState, Phase, Tally, read_state, write_state
from pirl_server.loop.world import Promote, RejectedError, RollBack, StartCanary, Withdraw
from pirl_server.registry.evaluation import Evaluation, Evaluations
from pirl_server.serving.exploration import Exploration
from pirl_server.serving.router import Dispatcher

START = "2026-01-01T00:00:00.000+00:00"
SPEC = Loop(task="t", compared_episodes=10, evaluation=None, canary=LoopCanary(episodes=3))


def altered(bits: list[int], source: list[int]) -> Episode:
    """A made-up episode whose steps were altered and driven so, again and again."""
    episode = make_episode()
    count = len(episode.steps.reward)
    steps = replace(
        episode.steps,
        alterations=np.resize(np.array(bits, np.uint32), count),
        source=np.resize(np.array(source, np.uint8), count),
    )
    return replace(episode, steps=steps)


def test_steps_are_counted_by_who_drove_and_what_altered_them(tmp_path: Path) -> None:
    bits = [0, int(Alteration.LIMIT), int(Alteration.BLENDED | Alteration.CLIPPED), int(Alteration.JUMP)]
    source = [ControlSource.POLICY, ControlSource.POLICY, ControlSource.POLICY, ControlSource.HUMAN]
    store = EpisodeStore(tmp_path)
    episode = altered(bits, [int(each) for each in source])
    count = len(episode.steps.reward)
    summary = store.write(episode)
    human = sum(1 for step in range(count) if step % 4 == 3)
    limited = sum(1 for step in range(count) if step % 4 == 1)
    assert step_counts(store.root / summary.path) == StepCounts(count - human, limited, human, 0, 0)


def test_help_is_no_success_of_the_policy_and_a_demonstration_says_nothing_of_it() -> None:
    alone, helped = facts(0, True), facts(1, True, human_steps=12)
    unlabelled, shown = facts(2, None, human_steps=12), facts(3, True, human_steps=40, policy_steps=0)
    assert tally([alone]).successes == 1
    found = tally([alone, helped, unlabelled, shown, facts(4, None)])
    assert (found.episodes, found.successes) == (3, 1)
    compared = Tally(episodes=50, successes=45)
    assert worse(compared, [helped] * 10, looks=20, alpha=0.05)
    assert not worse(compared, [alone] * 10, looks=20, alpha=0.05)


def test_rejected_chunks_are_counted_by_version() -> None:
    dispatcher: Any = Dispatcher(None)  # type: ignore[arg-type]
    good, bad = (
        SimpleNamespace(policy=SimpleNamespace(version="v2"), sample=SimpleNamespace(actions=np.array(row), seed=1))
        for row in ([0.0, 1.0], [0.0, np.nan])
    )
    assert dispatcher.check_actions(good) is good
    assert dispatcher.not_finite["v2"] == 0
    with pytest.raises(RuntimeError, match="v2 returned actions that are not finite, seed 1"):
        dispatcher.check_actions(bad)
    assert (dispatcher.not_finite["v2"], dispatcher.not_finite["v1"]) == (1, 0)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_each_robots_episodes_explore_evenly(share: float) -> None:
    exploration = Exploration(default=True)
    exploration.set_share(share)
    for robot in ("arm-1", "arm-2"):
        begun = [exploration.begin(robot) for _ in range(20)]
        assert sum(begun) == 20 * share
        assert all(abs(sum(begun[:count]) - count * share) < 1 for count in range(1, 21))
    exploration.set_share(None)
    assert exploration.begin("arm-1") is True, "as the server was started"


def test_outcomes_of_an_evaluation_are_kept_and_must_match_its_counts(tmp_path: Path) -> None:
    evaluations = Evaluations(tmp_path)
    plain = Evaluation("v1", "t", "a" * 16, 3, 2, "2026", outcomes=(True, False, True))
    evaluations.put(plain)
    assert evaluations.of("v1") == [plain]
    with pytest.raises(ValueError, match="3 outcomes with 2 successes, but 1 successes of 3"):
        evaluations.put(replace(plain, successes=1))
    evaluations.put(replace(plain, outcomes=()))
    assert evaluations.of("v1")[0].outcomes == (), "as an earlier version stored it"


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    state = replace(begin(SPEC, START), phase=Phase.CANARY, canary_robots=("arm-1",))
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


class Seen:
    """A `ServerWorld` over a deployment, with a store of episodes."""

    def __init__(self, folder: Path, world: World, spec: Loop = SPEC) -> None:
        self.store = EpisodeStore(folder / "episodes")
        self.deployed, self.recorded, self.began = world, 0, datetime.now(timezone.utc) - timedelta(minutes=10)
        world.see_robots = partial(robot_evidence, world.registry, self.store)
        self.jobs = Supervisor(folder / "jobs", ["true"])
        self.id = self.jobs.submit(spec).id
        service: Any = SimpleNamespace(dispatcher=SimpleNamespace(not_finite={"v2": 0, "": 0}), exploration=None)
        self.world = ServerWorld(
            self.id, spec, self.jobs, self.store, world.registry, world.promoter, world.deployment, service
        )

    @property
    def last(self) -> str:
        """When the last episode was published."""
        return (self.began + timedelta(seconds=self.recorded)).isoformat(timespec="milliseconds")

    def record(
        self, version: str, outcomes: Sequence[bool], robot: str = "arm-1", instruction: str = "stack the blocks"
    ) -> None:
        """Labelled episodes of a version, one second after the other."""
        contract = self.deployed.registry.get(version).contract
        for success in outcomes:
            self.recorded += 1
            self.store.write(
                of(
                    altered([0], [0]), id=f"{self.recorded:032x}", created=self.last, policy_versions=(version,),
                    success=success, label_source="operator", robot_id=robot, contract=contract,
                    instruction=instruction,
                )
            )  # fmt: skip


@pytest.fixture
def seen(tmp_path: Path, world: World) -> Any:
    made = Seen(tmp_path, world)
    yield made
    made.jobs.close()


def of(episode: Episode, **info: object) -> Episode:
    return replace(episode, info=replace(episode.info, **info))  # type: ignore[arg-type]


def test_a_loop_sees_the_episodes_that_concern_it(seen: Seen, contract: Contract) -> None:
    plain = altered([0], [0])
    stopped = altered([int(Alteration.EMERGENCY_STOP)], [int(ControlSource.HOLD)])
    late = "2026-01-01T01:00:00.000+00:00"
    for number, episode in enumerate(
        [
            of(plain, created=late, policy_versions=("v1",), success=True, label_source="operator"),
            of(plain, created=late, policy_versions=("v1", "v2")),
            of(plain, created=late, policy_versions=("v1",), dry_run=True),
            of(stopped, created=late, policy_versions=("v2",)),
            of(plain, created="2025-12-31T00:00:00.000+00:00", policy_versions=("v1",)),
            of(plain, created="2025-12-31T00:00:00.000+00:00", policy_versions=("v3",)),
        ]
    ):
        seen.store.write(of(episode, id=f"{number:032x}", contract=contract))
    facts = {int(each.id, 16): each for each in seen.world.view(LoopState(START, START)).episodes}
    assert sorted(facts) == [0, 1, 3, 4], "no dry run, and of those before it began production's only"
    assert (facts[0].version, facts[0].success, facts[0].fault) == ("v1", True, "")
    assert facts[0].seconds == pytest.approx(len(plain.steps.reward) / contract.rate_hz)
    assert facts[1].version == ""
    assert facts[3].fault == "an emergency stop"


def test_a_canary_is_withdrawn_and_its_running_episode_gets_production(seen: Seen, world: World) -> None:
    seen.world.act(StartCanary("v2", ("arm-1",), "try"))
    assert seen.world.view(LoopState(START, START)).canary == "v2"
    world.open_episodes.add("e1")
    assert world.router.begin("e1", "arm-1") == "v2"
    world.registry.point("candidate", "v3", "a job", "learnt meanwhile")
    assert seen.world.view(LoopState(START, START)).canary == ""
    for _ in range(2):  # twice is as once
        seen.world.act(Withdraw("v2", "worse"))
    assert world.router.version("arm-1", "", "e1") is None
    assert world.registry.aliases() == {"production": "v1", "candidate": "v3"}, "another job's candidate stays"
    assert world.deployment.routes.canary_robots == ()


def test_what_the_server_does_not_allow_is_said(seen: Seen, world: World) -> None:
    with pytest.raises(RejectedError, match="no evaluation on the same fixed list"):
        seen.world.act(Promote("v2", "reason"))
    with pytest.raises(RejectedError):
        seen.world.act(StartCanary("nothing", ("arm-1",), "try"))
    assert world.registry.aliases()["production"] == "v1"


def canary_begun(seen: Seen) -> LoopState:
    """Production succeeded in 40 of 50; arm-2 tries v2."""
    seen.record("v1", [number % 5 > 0 for number in range(50)])
    state = replace(
        begin(SPEC, START), phase=Phase.CANARY, base="v1", candidate="v2", canary_robots=("arm-2",),
        since=seen.last, compared=Tally(50, 40),
    )  # fmt: skip
    seen.world.act(StartCanary("v2", ("arm-2",), "try"))
    return state


def test_without_a_simulator_the_gate_of_the_robots_is_asked_and_promoted_through(seen: Seen, world: World) -> None:
    """The loop's own decisions over its own view of real episodes: no step is made for it."""
    state = canary_begun(seen)
    needed = 12  # in a row, as docs/results/gate.md has it for 40 of 50
    for tried in range(1, needed + 1):
        seen.record("v2", [True], "arm-2")
        view = seen.world.view(state)
        assert bool(view.rejection) == (SPEC.canary.episodes <= tried < needed), "not asked before the canary's least"
        move = decide(SPEC, seen.id, state, view)
        assert move is not None
        state = move.state
        if tried < needed:
            assert move.action is None
            assert f"needs {needed - tried} more if all succeed" in move.note
            with pytest.raises(RejectedError, match=f"needs {needed - tried} more if all succeed"):
                seen.world.act(Promote("v2", "too early"))
    assert isinstance(move.action, Promote)
    assert state.phase is Phase.WATCH
    seen.world.act(move.action)
    assert world.registry.aliases()["production"] == "v2"
    lines = [json.loads(line) for line in world.registry.audit_log.path.read_text().splitlines()]
    moved = [line for line in lines if line.get("alias") == "production" and line["version"] == "v2"]
    assert [line["event"] for line in moved if line["event"] != "refused"] == ["promoted"], "not forced"
    assert "12 of 12 labelled episodes of the candidate succeeded, 40 of 50 of production" in moved[-1]["reason"]


def test_a_candidate_that_fails_on_its_robot_is_withdrawn_by_its_episodes(seen: Seen, world: World) -> None:
    """The control: the same world, but the candidate fails."""
    state = canary_begun(seen)
    seen.record("v2", [False] * 3, "arm-2")
    move = decide(SPEC, seen.id, state, seen.world.view(state))
    assert move is not None
    assert isinstance(move.action, Withdraw)
    seen.world.act(move.action)
    assert world.registry.aliases() == {"production": "v1"}


def test_the_gate_is_asked_again_only_after_a_new_outcome(
    seen: Seen, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the steps of many episodes, and a loop looks every second."""
    seen.record("v1", [True] * 25)
    seen.record("v2", [True] * 4, "arm-2")
    state = replace(begin(SPEC, START), phase=Phase.CANARY, base="v1", candidate="v2")
    check, asked = world.promoter.check, list[str]()
    monkeypatch.setattr(world.promoter, "check", lambda version, said: (asked.append(version), check(version, said))[1])
    for count, version in enumerate(("v1", "v2", "v2"), 1):
        for _ in range(3):
            assert "more if all succeed" in seen.world.view(state).rejection
        assert asked == ["v2"] * count
        seen.record(version, [True])


def test_robots_that_have_few_episodes_of_production_are_compared_with_all(seen: Seen, world: World) -> None:
    """Twelve of their own are too few for the gate to know anything, and there are enough of others."""
    seen.record("v1", [True] * 30, "arm-1")
    seen.record("v1", [True] * 12, "arm-2")
    seen.record("v2", [True] * 4, "arm-2")
    found = robot_evidence(world.registry, seen.store, "v1", "v2")
    assert found is not None
    assert found.episodes == 42
    facts = seen.world.view(LoopState(START, START)).episodes
    assert compared_with(replace(SPEC, compared_episodes=100), facts, "v1", ("arm-2",)).episodes == 42
    seen.record("v1", [True] * 8, "arm-2")
    again = robot_evidence(world.registry, seen.store, "v1", "v2")
    assert again is not None
    assert again.episodes == 20


OTHER = "open the drawer"


def test_the_gate_counts_no_robot_episode_of_another_instruction_than_the_loops(tmp_path: Path, world: World) -> None:
    """Eleven successes are one too few, and twenty at another task change nothing; the control: without an instruction
    in its specification, for a production version that names none, the loop counts them all."""
    for spec, enough in ((replace(SPEC, instructions=("stack the blocks",)), False), (SPEC, True)):
        seen = Seen(tmp_path / str(enough), world, spec)
        try:
            seen.record("v1", [number % 5 > 0 for number in range(50)])
            seen.record("v1", [True] * 30, instruction=OTHER)
            seen.record("v2", [True] * 11, "arm-2")
            seen.record("v2", [True] * 20, "arm-2", OTHER)
            state = replace(begin(spec, START), phase=Phase.CANARY, base="v1", candidate="v2")
            view = seen.world.view(state)
            tried = [each for each in view.episodes if each.version == "v2"]
            assert (len(tried), view.rejection == "") == ((31, True) if enough else (11, False))
            if not enough:
                assert "11 of 11 labelled episodes of the candidate succeeded, 40 of 50" in view.rejection
                with pytest.raises(RejectedError, match="needs 1 more if all succeed"):
                    seen.world.act(Promote("v2", "too early"))
        finally:
            seen.jobs.close()


def test_a_loop_without_instructions_counts_those_that_production_was_trained_on(seen: Seen, world: World) -> None:
    card = world.registry.get("v1").path / "card.json"
    card.write_text(json.dumps({"task": "push", "instructions": ["stack the blocks"]}))
    seen.record("v1", [True] * 3)
    seen.record("v1", [True] * 2, instruction=OTHER)
    assert len(seen.world.view(LoopState(START, START)).episodes) == 3


def test_a_promotion_by_hand_compares_what_the_candidate_was_tried_with(seen: Seen, world: World) -> None:
    """Production always fails at another instruction, which says nothing of this one."""
    seen.record("v1", [True] * 45 + [False] * 5)
    seen.record("v1", [False] * 60, instruction=OTHER)
    seen.record("v2", [True] * 4, "arm-2")
    found = robot_evidence(world.registry, seen.store, "v1", "v2")
    assert found is not None
    assert (found.episodes, found.successes, found.outcomes) == (50, 45, (True,) * 4)
    every = robot_evidence(world.registry, seen.store, "v1", "v2", ("stack the blocks", OTHER))
    assert every is not None
    assert (every.episodes, every.successes) == (100, 35), "the newest hundred of both: 60 failures, then 35 of 40"
    assert robot_evidence(world.registry, seen.store, "v1", "v2", (OTHER,)) is None, "it was not tried with that"


def test_promoting_and_rolling_back_twice_is_as_once(seen: Seen, world: World) -> None:
    seen.record("v1", [number % 5 > 0 for number in range(50)])
    seen.record("v2", [True] * 20)
    for _ in range(2):
        seen.world.act(Promote("v2", "loop, round 0"))
    assert world.registry.aliases()["production"] == "v2"
    for _ in range(2):
        seen.world.act(RollBack("v2", "worse"))
    assert world.registry.aliases()["production"] == "v1"


def test_a_rollback_of_the_loop_and_one_of_the_watch_at_once_go_back_once(
    seen: Seen, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("v2", "v3"):
        world.promoter.promote(version, "test", "because", force=True)
    serves = seen.world._serves

    def then_the_watch_was_faster(version: str) -> bool:
        found = serves(version)
        world.promoter.rollback("auto-rollback")
        return found

    monkeypatch.setattr(seen.world, "_serves", then_the_watch_was_faster)
    seen.world.act(RollBack("v3", "worse"))
    assert world.registry.aliases()["production"] == "v2"
