"""Judges a candidate by robots' episodes, and by the states that both versions were evaluated on. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pirl_server.config.loop import Loop, LoopEvaluation
from pirl_server.loop.state import Rates, Tally
from pirl_server.loop.world import EpisodeFacts
from pirl_server.registry.gate_rule import GateRule
from pirl_server.registry.paired_test import paired_test
from pirl_server.registry.robot_trial import LEAST_KNOWN, RobotEvidence, RobotTrial, judge_robots
from pirl_server.registry.sequential_test import limits

ALTERED_FACTOR, ALTERED_MARGIN = 2.0, 0.1
"""a candidate may have so many times the altered share of production, and so much more"""
MIN_POLICY_STEPS = 20
"""below that a share says nothing"""
OWN_EPISODES = 10
"""so many of the canary's robots themselves, and other robots' are left out of the comparison"""


def counts(episode: EpisodeFacts) -> bool:
    """Whether an episode says how well the policy does: a label, a takeover or a fault. A demonstration does not."""
    if episode.fault:
        return True
    if episode.human_steps:
        return episode.policy_steps > 0
    return episode.success is not None


def succeeded(episode: EpisodeFacts) -> bool:
    """Whether it was labelled a success, nothing stopped it, and the policy did it alone: help is a failure."""
    return episode.success is True and not episode.fault and not episode.human_steps


def tally(episodes: Iterable[EpisodeFacts]) -> Tally:
    """Count outcomes; the steps also of episodes without one."""
    listed = list(episodes)
    judged = [each for each in listed if counts(each)]
    return Tally(
        episodes=len(judged),
        successes=sum(map(succeeded, judged)),
        policy_steps=sum(each.policy_steps for each in listed),
        altered_steps=sum(each.altered_steps for each in listed),
    )


def compared_with(spec: Loop, episodes: Sequence[EpisodeFacts], base: str, robots: Sequence[str] = ()) -> Tally:
    """Tally the newest episodes of production, those of these robots alone where there are enough."""
    least, most = OWN_EPISODES, spec.compared_episodes
    if spec.evaluation is None:  # the robots' gate knows nothing from fewer
        least, most = LEAST_KNOWN, max(most, LEAST_KNOWN)
    theirs = [each for each in episodes if each.version == base and counts(each)]
    own = [each for each in theirs if each.robot_id in robots]
    return tally((own if len(own) >= least else theirs)[-most:])


def robot_trial(compared: Tally, episodes: Sequence[EpisodeFacts], rule: GateRule) -> RobotTrial:
    """Judge the candidate's episodes, by time, as the promotion gate does, against what was fixed when they began."""
    outcomes = tuple(map(succeeded, filter(counts, episodes)))
    return judge_robots(RobotEvidence(compared.successes, compared.episodes, outcomes), rule)


def evaluated(settings: LoopEvaluation, base: Sequence[bool], candidate: Sequence[bool]) -> tuple[bool, str, Rates]:
    """Whether the candidate passes on the same initial states, as text and as numbers.

    It passes when it is worse by the margin with at most the probability alpha. Raises ValueError for unequal lists.
    """
    found = paired_test(base, candidate, settings.margin)
    said = f"{sum(candidate)} against {sum(base)} successes, {found}"
    rates = Rates(found.episodes, sum(base), sum(candidate), found.p_not_worse, found.p_better)
    return found.p_not_worse <= settings.alpha, said, rates


def worse(compared: Tally, episodes: Sequence[EpisodeFacts], looks: int, alpha: float) -> str:
    """Why the candidate's episodes, by time, are worse than those it is compared with; empty: they are not.

    Either failures reach a limit of the sequential test, or its actions are altered far more often.
    """
    failures_at, failed = limits(compared.successes, compared.episodes, looks, alpha), 0
    for seen, (episode, limit) in enumerate(zip(filter(counts, episodes), failures_at), 1):
        failed += not succeeded(episode)
        if failed >= limit:
            return (
                f"{failed} of its first {seen} episodes failed, {compared.episodes - compared.successes} of"
                f" {compared.episodes} of production"
            )
    found = tally(episodes)
    bound = ALTERED_FACTOR * compared.altered_share + ALTERED_MARGIN
    if found.policy_steps >= MIN_POLICY_STEPS and found.altered_share > bound:
        return (
            f"{found.altered_share:.0%} of its steps were altered by the robot's limits,"
            f" {compared.altered_share:.0%} of production's"
        )
    return ""


def faulty(episodes: Iterable[EpisodeFacts], not_finite: int) -> str:
    """Why a canary must end at once, whatever the outcomes; empty: nothing of the kind happened."""
    if not_finite:
        return f"the server rejected {not_finite} of its chunks: actions that are not finite"
    return next((f"{each.fault} on {each.robot_id}, episode {each.id}" for each in episodes if each.fault), "")


def below(spec: Loop, compared: Tally, canary: Tally) -> str:
    """Why a candidate whose canary has run to its end is not promoted; empty: it is.

    It must have succeeded at least once where production did; one that no simulator could judge at least as often.
    """
    if not compared.successes:
        return ""
    rate, other = canary.successes / canary.episodes, compared.successes / compared.episodes
    if rate >= other or (spec.evaluation is not None and canary.successes):
        return ""
    return f"its success rate {rate:.2f} on robots is below production's {other:.2f}"
