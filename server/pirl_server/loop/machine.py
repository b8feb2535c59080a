"""The loop's decisions, as one pure function of what it wants, where it stands and what it sees.

collect [-> propose] -> learn -> [evaluate_base -> evaluate_candidate] -> canary -> watch -> collect ...

A round may be over in any phase but the first; its candidate is withdrawn then, or rolled back from `watch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.jobs import Evaluate, FinetuneEpisodes
from pirl_server.config.loop import Loop
from pirl_server.config.success import SuccessModel
from pirl_server.loop.judgement import below, compared_with, evaluated, faulty, robot_trial, tally, worse
from pirl_server.loop.state import LoopState, Phase, Round, Tally
from pirl_server.loop.world import (
    Action,
    CancelChild,
    EpisodeFacts,
    Promote,
    RollBack,
    StartCanary,
    Submit,
    View,
    Withdraw,
)
from pirl_server.registry.acceptance_test import LOOKS
from pirl_server.registry.robot_trial import LEAST_KNOWN, RobotTrial

MAX_EXTENSIONS = 3
"""how often a round collects further episodes because too few of them were usable"""
CHILD_PHASES = (Phase.PROPOSE, Phase.LEARN, Phase.EVALUATE_BASE, Phase.EVALUATE_CANDIDATE)


@dataclass(frozen=True)
class Move:
    """A transition: what to do, and where the loop stands when that is done."""

    state: LoopState
    note: str
    """what happened, with numbers, one line"""
    action: Action | None = None
    urgent: bool = False
    """for the safety of robots: a paused loop makes it too"""
    end: str = ""
    """why the loop has ended; empty: it has not"""


def begin(spec: Loop, now: str) -> LoopState:
    """Return where a new loop stands."""
    return LoopState(started=now, since=now, target=spec.episodes_per_round)


def decide(spec: Loop, job: str, state: LoopState, view: View) -> Move | None:
    """Return the next transition, None while there is nothing to do; `job` is the loop's id."""
    state = replace(state, robot_minutes=_minutes(state, view))
    move = _PHASES[state.phase](spec, job, state, view)
    if move is None or not view.paused or move.urgent:
        return move
    leaves = (move.state.round, move.state.phase) != (state.round, state.phase)
    return None if leaves or move.end else move


def rejected(spec: Loop, state: LoopState, view: View, why: str) -> Move:
    """Return what follows when the server did not allow the action of the last move; `state` is the one before it."""
    return _over(spec, state, view, "rejected", why, urgent=True)


def leave(state: LoopState, reason: str) -> Sequence[Action]:
    """Return what takes back everything that is under way: of a loop that is cancelled or has failed."""
    actions: list[Action] = []
    if state.candidate and state.phase is not Phase.WATCH:
        actions.append(Withdraw(state.candidate, reason))
    if state.child and state.phase in CHILD_PHASES:
        actions.append(CancelChild(state.child))
    return actions


def _collect(spec: Loop, job: str, state: LoopState, view: View) -> Move | None:
    if view.production != state.base:
        since = view.now if state.base else state.since
        return Move(replace(state, base=view.production, since=since), f"collects episodes of {view.production}")
    if spent := _spent(spec, state):
        return Move(state, spent, end=spent)
    new = _of(view, state.base, state.since)
    found, proposed = tally(_labelled(new)), sum(each.proposed is not None for each in new)
    before, state = state, replace(state, collected=found, model_labels=proposed)
    unjudged = _unjudged(spec, state, new)
    if missing := _uncollected(spec, state, view, len(_labelled(new)) + proposed, unjudged):
        return Move(state, missing) if state != before else None
    rate = found.successes / max(1, found.episodes)  # demonstrations are collected, and say nothing of the policy
    if spec.target_success is not None and rate >= spec.target_success:
        reached = f"success {rate:.2f} of {found.episodes} episodes reaches target_success {spec.target_success:g}"
        return Move(state, reached, end=reached)
    ready = replace(state, attempt=0)
    if spec.success_model is not None and (not state.judged or len(_labelled(new)) + proposed < state.target):
        said = f"{found}; success model {spec.success_model.version} judges what has no label"
        judging = replace(ready, judged=view.now, judgings=state.judgings + 1)
        return _submit(spec, job, judging, Phase.PROPOSE, said)
    return _submit(spec, job, ready, Phase.LEARN, f"{found}{_modelled(spec, state)}: learning begins")


def _labelled(episodes: Sequence[EpisodeFacts]) -> list[EpisodeFacts]:
    return [each for each in episodes if each.success is not None]


def _unjudged(spec: Loop, state: LoopState, new: Sequence[EpisodeFacts]) -> int:
    """How many episodes without a label the success model has not seen; what it was not sure of, it has."""
    if spec.success_model is None:
        return 0
    unlabelled = [each for each in new if each.success is None and each.proposed is None and not each.fault]
    return sum(each.created > state.judged for each in unlabelled)


def _modelled(spec: Loop, state: LoopState) -> str:
    """How many outcomes are the success model's; empty without one."""
    model = spec.success_model
    return "" if model is None else f"; {state.model_labels} more by success model {model.version}"


def _propose(spec: Loop, job: str, state: LoopState, view: View) -> Move | None:
    """Back to collecting, which counts what the model was sure of, and learns when that is enough."""
    child = view.child
    if child is None or not child.ended:
        return None
    if child.interrupted:
        return _again(spec, job, state)
    if child.error:
        return _over(spec, state, view, "failed", child.error)
    if view.production != state.base:
        return _over(spec, state, view, "ended", _moved(view))
    return Move(replace(state, phase=Phase.COLLECT, child=""), "episodes without a label were judged")


def _uncollected(spec: Loop, state: LoopState, view: View, known: int, unjudged: int) -> str:
    """What is missing before a round can learn, or let the success model judge; empty: nothing."""
    fresh = known + unjudged
    if fresh < state.target:
        return f"{fresh} of {state.target} episodes collected"
    labelled = compared_with(spec, view.episodes, state.base).episodes
    if spec.evaluation is None and labelled < LEAST_KNOWN:
        return f"{fresh} episodes collected, {labelled} of the {LEAST_KNOWN} that a candidate is compared with"
    return ""


def _learn(spec: Loop, job: str, state: LoopState, view: View) -> Move | None:
    child = view.child
    if child is None or not child.ended:
        return None
    if child.interrupted:
        return _again(spec, job, state)
    if child.too_few_episodes and state.target < (1 + MAX_EXTENSIONS) * spec.episodes_per_round:
        more = replace(state, phase=Phase.COLLECT, child="", target=state.target + spec.episodes_per_round)
        return Move(more, f"{child.error}: collects until there are {more.target}")
    if child.error or child.version is None:
        return _over(spec, state, view, "failed", child.error or "the job made no version")
    learnt = replace(state, candidate=child.version, offline=child.offline, model_labels=child.model_labels)
    if view.production != state.base:
        return _over(spec, learnt, view, "ended", _moved(view))
    if child.version == state.base:
        return _over(spec, replace(state, candidate=""), view, "rejected", "the job did not change the policy")
    if child.offline_refusal:
        return _over(spec, learnt, view, "rejected", child.offline_refusal)
    if spec.evaluation is None:
        return _try(spec, job, replace(learnt, gate_passed=True), view)
    return _submit(spec, job, replace(learnt, attempt=0), Phase.EVALUATE_BASE, f"{child.version} was learnt")


def _evaluate(spec: Loop, job: str, state: LoopState, view: View) -> Move | None:
    child = view.child
    if child is None or not child.ended:
        return None
    if child.interrupted:
        return _again(spec, job, state)
    if child.error:
        return _over(spec, state, view, "failed", child.error)
    if view.production != state.base:
        return _over(spec, state, view, "ended", _moved(view))
    if state.phase is Phase.EVALUATE_BASE:
        return _submit(spec, job, replace(state, attempt=0), Phase.EVALUATE_CANDIDATE, f"{state.base} was evaluated")
    if view.outcomes is None or spec.evaluation is None:
        return _over(spec, state, view, "failed", "the evaluations hold no outcome of each initial state")
    passed, said, rates = evaluated(spec.evaluation, *view.outcomes)
    judged = replace(state, gate_passed=passed and not view.rejection, evaluation=said, rates=rates)
    if not judged.gate_passed:
        return _over(spec, judged, view, "rejected", f"{said}; {view.rejection}" if view.rejection else said)
    return _try(spec, job, judged, view)


def _try(spec: Loop, job: str, state: LoopState, view: View) -> Move:
    """Begin the canary."""
    if spent := _spent(spec, state):
        return _over(spec, state, view, "ended", spent, end=spent)
    if view.canary not in ("", state.candidate):
        return _over(spec, state, view, "rejected", f"{view.canary} has a canary already")
    robots = _robots(spec, state, view)
    if not robots:
        return _over(spec, state, view, "rejected", "no robot can try it: all that may are pinned to a version")
    compared = compared_with(spec, view.episodes, state.base, robots)
    trial = replace(
        state, phase=Phase.CANARY, child="", since=view.now, compared=compared, canary_robots=robots, canary=Tally()
    )
    gate = _gate(state)
    note = f"{state.candidate} is tried on {', '.join(robots)}; {gate}; production: {compared}"
    return Move(trial, note, StartCanary(state.candidate, robots, _reason(job, state, gate)))


def _canary(spec: Loop, job: str, state: LoopState, view: View) -> Move | None:
    if view.production == state.candidate:  # promoted by a server that was killed before it was written down
        return _promote(spec, job, replace(state, canary=tally(_of(view, state.candidate, state.since))), view)
    if view.production != state.base:
        return _over(spec, state, view, "ended", _moved(view), urgent=True)
    if view.canary != state.candidate:
        return _over(spec, state, view, "ended", "the canary was ended by another caller", urgent=True)
    episodes = _of(view, state.candidate, state.since)
    before, found = state, tally(episodes)
    state = replace(state, canary=found)
    trial = None
    if spec.evaluation is None:
        state, trial = _tried(spec, state, view, episodes)
    bad = faulty(episodes, view.not_finite)
    bad = bad or worse(state.compared, episodes, spec.canary.episodes, spec.canary.alpha)
    if bad := bad or (str(trial) if trial is not None and trial.rejected else ""):
        return _over(spec, state, view, "worse", bad, urgent=True)
    if trial is not None and (trial.hopeless or (trial.over and not trial.accepted)):
        return _over(spec, state, view, "rejected", str(trial), urgent=True)
    if spent := _spent(spec, state):
        return _over(spec, state, view, "ended", _with_trial(state, spent), urgent=True, end=spent)
    if found.episodes >= spec.canary.episodes and (move := _judge(spec, job, state, view, trial)) is not None:
        return move
    if _hours(state.since, view.now) >= spec.canary.max_hours:
        late = f"{found.episodes} of {spec.canary.episodes} episodes after {spec.canary.max_hours:g} h"
        return _over(spec, state, view, "rejected", _with_trial(state, late), urgent=True)
    return Move(state, _with_trial(state, f"canary: {found}")) if state != before else None


def _tried(spec: Loop, state: LoopState, view: View, episodes: Sequence[EpisodeFacts]) -> tuple[LoopState, RobotTrial]:
    """Where the robots' gate stands. What production is known by is fixed once there is enough of it."""
    if state.compared.episodes < LEAST_KNOWN:
        state = replace(state, compared=compared_with(spec, view.episodes, state.base, state.canary_robots))
    trial = robot_trial(state.compared, episodes, view.rule)
    return replace(state, trial=str(trial)), trial


def _judge(spec: Loop, job: str, state: LoopState, view: View, trial: RobotTrial | None) -> Move | None:
    """Promote or give up a candidate whose canary had its episodes; None: the gate needs more of them."""
    if trial is not None and not trial.accepted:
        return None
    if why := below(spec, state.compared, state.canary):
        return _over(spec, state, view, "worse", why, urgent=True)
    if trial is None or not view.rejection:
        return _promote(spec, job, state, view)
    return _over(spec, state, view, "rejected", view.rejection, urgent=True) if state.canary.episodes >= LOOKS else None


def _promote(spec: Loop, job: str, state: LoopState, view: View) -> Move:
    compared = compared_with(spec, view.episodes, state.base)
    after = replace(state, phase=Phase.WATCH, since=view.now, compared=compared, promotions=state.promotions + 1)
    evidence = _with_trial(state, f"{_gate(state)}; canary: {state.canary}; production: {state.compared}")
    return Move(
        after, f"{state.candidate} is promoted; {evidence}", Promote(state.candidate, _reason(job, state, evidence))
    )


def _watch(spec: Loop, job: str, state: LoopState, view: View) -> Move | None:
    if view.production != state.candidate:
        outcome = "rolled back" if view.production == state.base else "ended"
        return _over(spec, state, view, outcome, _moved(view), urgent=True)
    episodes = _of(view, state.candidate, state.since)
    bad = worse(state.compared, episodes, spec.watch_episodes, spec.canary.alpha) if spec.watch_episodes else ""
    if bad:
        move = _over(spec, state, view, "rolled back", bad, urgent=True)
        return replace(move, action=RollBack(state.candidate, _reason(job, state, bad)))
    found = tally(episodes)
    if found.episodes >= spec.watch_episodes:
        return _over(spec, state, view, "promoted", f"after the promotion: {found}")
    spent = _spent(spec, state)
    return _over(spec, state, view, "promoted", f"{spent}; since the promotion: {found}", end=spent) if spent else None


_PHASES = {
    Phase.COLLECT: _collect,
    Phase.PROPOSE: _propose,
    Phase.LEARN: _learn,
    Phase.EVALUATE_BASE: _evaluate,
    Phase.EVALUATE_CANDIDATE: _evaluate,
    Phase.CANARY: _canary,
    Phase.WATCH: _watch,
}


def _over(
    spec: Loop, state: LoopState, view: View, outcome: str, reason: str, *, urgent: bool = False, end: str = ""
) -> Move:
    """Record the round and begin the next one, or end. What robots did since a promotion counts in the next round."""
    record = Round(
        state.round, state.base, state.candidate, outcome, reason, state.collected, state.evaluation, state.canary,
        state.compared, state.offline, state.rates,
        state.robot_minutes, view.now, state.model_labels,
    )  # fmt: skip
    after = LoopState(
        started=state.started,
        since=state.since if outcome == "promoted" else view.now,
        round=state.round + 1,
        target=spec.episodes_per_round,
        robot_minutes=state.robot_minutes,
        promotions=state.promotions,
        rounds=(*state.rounds, record),
    )
    tried = state.candidate if state.phase is not Phase.WATCH else ""
    action = Withdraw(tried, reason) if tried else None
    note = f"round {state.round}: {outcome}: {reason}"
    return Move(after, note, action, urgent, end or _ended(spec, after))


def _ended(spec: Loop, state: LoopState) -> str:
    if spec.on_worse == "stop" and state.rounds[-1].outcome in ("worse", "rolled back"):
        return f"robots did worse in round {state.rounds[-1].number}, and on_worse is 'stop'"
    if len(state.rounds) >= spec.rounds:
        return f"all {spec.rounds} rounds are done"
    if spec.patience is not None and state.rounds_since_promotion >= spec.patience:
        return f"no promotion in {state.rounds_since_promotion} rounds, patience is {spec.patience}"
    return ""


def _submit(spec: Loop, job: str, state: LoopState, phase: Phase, note: str) -> Move:
    """Wait for a job; the controller puts its id into the state."""
    count = state.judgings if phase is Phase.PROPOSE else state.target
    key = f"{job} round {state.round} {phase.value} {count} attempt {state.attempt}"
    return Move(replace(state, phase=phase, child=""), note, Submit(_job(spec, state, phase), key))


def _again(spec: Loop, job: str, state: LoopState) -> Move:
    note = f"{state.child} ended with the server and is submitted again"
    return _submit(spec, job, replace(state, attempt=state.attempt + 1), state.phase, note)


def _job(spec: Loop, state: LoopState, phase: Phase) -> FinetuneEpisodes | Evaluate | SuccessModel:
    if phase is Phase.PROPOSE:
        assert spec.success_model is not None
        unlabelled = EpisodeSelection(instructions=spec.instructions, label="unlabelled", limit=spec.learn_episodes)
        return SuccessModel(task=spec.task, model=spec.success_model.version, propose=unlabelled)
    if phase is Phase.LEARN:
        select = EpisodeSelection(instructions=spec.instructions, limit=spec.learn_episodes)
        return FinetuneEpisodes(
            task=spec.task, seed=spec.seed + state.round, base=state.base, select=select, config=spec.config,
            success_model=spec.success_model,
        )  # fmt: skip
    assert spec.evaluation is not None
    version = state.base if phase is Phase.EVALUATE_BASE else state.candidate
    count = spec.evaluation.episodes
    return Evaluate(
        task=spec.task, seed=spec.evaluation.list, version=version, first=state.round * count, episodes=count
    )


def _robots(spec: Loop, state: LoopState, view: View) -> tuple[str, ...]:
    """Robots of the canary: those named, else those with the most episodes of the round; none that is pinned."""
    if spec.canary.robots:
        return tuple(robot for robot in spec.canary.robots if robot not in view.pinned)
    busy = Counter(each.robot_id for each in _of(view, state.base, state.since))
    able = [
        robot for robot, _ in sorted(busy.items(), key=lambda item: (-item[1], item[0])) if robot not in view.pinned
    ]
    return tuple(able[: spec.canary.count])


def _of(view: View, version: str, since: str) -> list[EpisodeFacts]:
    return [each for each in view.episodes if each.version == version and each.created > since]


def _minutes(state: LoopState, view: View) -> float:
    return sum(each.seconds for each in view.episodes if each.created > state.started) / 60.0


def _spent(spec: Loop, state: LoopState) -> str:
    limit = spec.max_robot_minutes
    if limit is None or state.robot_minutes < limit:
        return ""
    return f"{state.robot_minutes:.1f} robot minutes reach max_robot_minutes {limit:g}"


def _with_trial(state: LoopState, said: str) -> str:
    return f"{said}; on robots {state.trial}" if state.trial else said


def _hours(since: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds() / 3600.0


def _moved(view: View) -> str:
    return f"another caller made {view.production} the production version"


def _gate(state: LoopState) -> str:
    """What spoke for the candidate before any robot had it."""
    labels = f"{state.model_labels} of the outcomes that it learnt are a success model's" if state.model_labels else ""
    return "; ".join(each for each in (state.evaluation or "no simulator for this task", state.offline, labels) if each)


def _reason(job: str, state: LoopState, evidence: str) -> str:
    return f"loop {job}, round {state.round}: {evidence}"[:1000]
