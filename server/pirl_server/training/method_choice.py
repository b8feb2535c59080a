"""Which method fits a log: what the episodes are decides, and the reason is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from pirl_server.config.training import LoggedMethod
from pirl_server.training.episode_log import EpisodeFacts

FEW_TAKEOVERS = 3
"""fewer corrections say too little to have half of each batch"""
FEW_OUTCOMES = 8
"""successes, or failures: with fewer, PPO's gradient is that of single episodes"""
MANY_EPISODES = 200
"""with 100 imitation gained more than PPO, with 500 PPO did (docs/results/robot-learning.md)"""


class Choice(NamedTuple):
    """A method and why."""

    method: LoggedMethod
    why: str


def choose(facts: Sequence[EpisodeFacts], fresh: Collection[str]) -> Choice:
    """Return the method for these episodes; `fresh` are the base's version and those before it that PPO can use.

    In this order: corrections by a human say most per step; many fresh chains with both outcomes allow a policy
    gradient; else what succeeded is imitated; without labels there is the order of observations. Weighting failures as
    well did no better than leaving them out (docs/results/robot-learning.md). A method that is chosen may still reject
    the log, with the reason.
    """
    outcomes = Counter(each.info.success for each in facts)
    labelled = outcomes[True] + outcomes[False]
    corrected = sum(each.takeovers > 0 and each.human_steps > 0 for each in facts)
    if corrected >= FEW_TAKEOVERS:
        return Choice("dagger", f"{corrected} episodes have a takeover")
    own = [each for each in facts if each.densities and set(each.info.policy_versions) <= set(fresh)]
    ends = Counter(each.info.success for each in own)
    if len(own) >= MANY_EPISODES and min(ends[True], ends[False]) >= FEW_OUTCOMES:
        return Choice(
            "ppo_logged",
            f"{len(own)} episodes have log-densities of the base or a version shortly before it, {ends[True]} of them"
            f" successes and {ends[False]} failures",
        )
    why_not = (
        f"{len(own)} of {len(facts)} episodes have fresh log-densities, {ends[True]} of them successes, where PPO takes"
        f" {MANY_EPISODES} and {FEW_OUTCOMES}"
    )
    if outcomes[True]:
        return Choice("filtered_bc", f"{outcomes[True]} successes, {outcomes[False]} failures; {why_not}")
    if not labelled:
        return Choice("progress", f"none of {len(facts)} episodes is labelled")
    return Choice("advantage_weighted", f"all of {labelled} labelled episodes failed: nothing else fits better")
