"""Makes the moves of a loop over a fleet in memory, as the controller does, and checks what may never happen."""

from __future__ import annotations

from dataclasses import replace

from loop_world import Fleet

from pirl_server.config.loop import Loop, LoopCanary, LoopEvaluation
from pirl_server.config.success import ModelLabels
from pirl_server.loop.judgement import evaluated
from pirl_server.loop.machine import Move, begin, decide, rejected
from pirl_server.loop.state import Phase
from pirl_server.loop.world import Action, Promote, RejectedError, StartCanary, Submit
from pirl_server.registry.gate_rule import USUAL_RULE
from pirl_server.registry.robot_trial import RobotEvidence, judge_robots

JOB = "job_0"
MODEL = ModelLabels(version="5f0c2a9d71be")


def loop(**changes: object) -> Loop:
    plain = {
        "task": "t", "rounds": 3, "episodes_per_round": 10, "watch_episodes": 10,
        "canary": LoopCanary(episodes=6), "evaluation": LoopEvaluation(episodes=100),
    }  # fmt: skip
    return Loop(**(plain | changes))  # type: ignore[arg-type]


class Driver:
    """Makes the moves, as the controller does."""

    def __init__(self, spec: Loop, fleet: Fleet) -> None:
        self.spec, self.fleet, self.state = spec, fleet, begin(spec, fleet.now)
        self.moves: list[Move] = []
        self.end = ""
        fleet.before = self.check

    def check(self, action: Action) -> None:
        """What may never happen, whatever the world does."""
        if isinstance(action, Submit):
            assert self.fleet.working == [] or action.key in self.fleet.keys, "two jobs at once"
        if isinstance(action, StartCanary):
            assert len(action.robots) <= self.spec.canary.count
        if isinstance(action, Promote):
            self.check_promotion(action)

    def check_promotion(self, action: Promote) -> None:
        mine = [each for each in self.fleet.episodes if each.version == action.version]
        assert sum(each.success is not None for each in mine) >= self.spec.canary.episodes, "without a canary"
        assert not any(each.fault for each in mine)
        if self.spec.evaluation is None:
            outcomes = tuple(bool(each.success) for each in mine if each.success is not None)
            compared = self.state.compared
            assert judge_robots(RobotEvidence(compared.successes, compared.episodes, outcomes), USUAL_RULE).accepted
        else:
            first = self.state.round * self.spec.evaluation.episodes
            outcomes = [self.fleet.outcomes[version, first] for version in (self.fleet.production, action.version)]
            assert evaluated(self.spec.evaluation, *outcomes)[0], "past the gate"

    def step(self) -> Move | None:
        view = self.fleet.view(self.state)
        move = decide(self.spec, JOB, self.state, view)
        if move is None or self.end:
            return None
        try:
            made = self.fleet.act(move.action) if move.action is not None else ""
        except RejectedError as error:
            move = rejected(self.spec, self.state, view, str(error))
            made = self.fleet.act(move.action) if move.action is not None else ""
        self.state = replace(move.state, child=made) if isinstance(move.action, Submit) else move.state
        self.moves.append(move)
        self.end = move.end
        return move

    def settle(self) -> None:
        for _ in range(100):
            if self.step() is None:
                return
        raise AssertionError("moves without an end while the world stands still")

    def live(self, ticks: int = 2000) -> None:
        """Let robots work and jobs end until the loop has."""
        for tick in range(ticks):
            self.settle()
            if self.end:
                return
            self.fleet.run(self.fleet.robots[tick % len(self.fleet.robots)])
            self.fleet.finish()
        raise AssertionError(f"no end after {ticks} episodes: {self.state}")

    def until(self, phase: Phase) -> None:
        for tick in range(300):
            self.settle()
            if self.state.phase is phase:
                return
            self.fleet.run(self.fleet.robots[tick % len(self.fleet.robots)])
            self.fleet.finish()
        raise AssertionError(f"never in {phase}")

    @property
    def outcomes(self) -> list[str]:
        return [done.outcome for done in self.state.rounds]
