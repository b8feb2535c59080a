"""What the log-densities of a log are worth for the base, before anything learns from them."""

from __future__ import annotations

from pathlib import Path

from pirl_server.config.training import EpisodesConfig
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_log import EpisodeLog
from pirl_server.training.episode_report import Densities
from pirl_server.training.episode_rl.behaviour import ages, behaviour
from pirl_server.training.episode_rl.logged_decisions import logged_decisions
from pirl_server.training.episode_rl.methods.method import Archive

MOST_EPISODES = 32
"""newest ones whose densities are recomputed for the report: it costs a forward pass of each decision"""


def densities(base: Path, log: EpisodeLog, config: EpisodesConfig, archive: Archive) -> Densities:
    """Recompute the densities of the newest exploring episodes of the base and of versions shortly before it."""
    if not any(each.densities for each in log.facts):
        return Densities()
    policy = FlowPolicy.load(base)
    fresh = tuple(ages(policy, archive, config.max_age))
    mine = log.where(lambda each: each.densities > 0 and set(each.info.policy_versions) <= set(fresh))
    if not mine:
        return Densities(fresh)
    read = mine[:MOST_EPISODES]
    data, why = logged_decisions(policy, read)
    try:
        drawn = behaviour(policy, data, config, archive)
    except ValueError as error:
        return Densities(fresh, len(read), unusable={str(error): len(data)})
    return Densities(fresh, len(read), drawn.ess, drawn.mismatch, dict(why + drawn.why))
