"""What a version that PPO learnt from a log gains over its base, at least, by exploring episodes that were held out.

Shape letters: M decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pirl_server.algorithm.off_policy_gain import bootstrap_lower_bound, pessimistic_gain
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_rl.behaviour import behaviour, log_probs
from pirl_server.training.episode_rl.logged_decisions import logged_decisions
from pirl_server.training.episode_rl.methods.method import Archive
from pirl_server.training.episode_rl.values import critic_reading, discounted_outcomes, held_out_values, in_stretches

ALPHA = 0.05
RESAMPLES = 2000
FEWEST = 20
"""episodes with a density: a bootstrap of fewer says nothing"""


@dataclass(frozen=True)
class OfflineGain:
    """Change of the success rate, to first order."""

    mean: float
    lower: float
    """one-sided 95 % bound"""
    episodes: int


def offline_gain(
    base: FlowPolicy,
    result: FlowPolicy,
    episodes: Sequence[Episode],
    config: EpisodesConfig,
    seed: int,
    archive: Archive,
) -> OfflineGain | None:
    """None where fewer than `FEWEST` of the episodes have a density that PPO can use.

    Outcomes are undiscounted, and their baseline is of critics that have not seen the episode; a decision whose outcome
    is not known counts as one of the base. `base` is left in the precision that it learns in.
    """
    data, _ = logged_decisions(base, episodes)
    if not data.acted.any():
        return None
    try:
        drawn = behaviour(base, data, config, archive)
    except ValueError:  # no density is left
        return None
    data = drawn.data
    used = torch.unique(data.episode[data.acted])
    if len(used) < FEWEST:
        return None
    outcome = discounted_outcomes(data.reward, data.last, 1.0)
    known = ~in_stretches(data.cut, data.last)
    reading = critic_reading(base, data, data.task, data.elapsed)
    value, _ = held_out_values(reading, outcome, data.episode, known, config.value_steps, seed)
    counted = replace(data, acted=data.acted & known)
    log_weight = log_probs(result, counted) - drawn.log_prob
    gain = pessimistic_gain(log_weight, outcome - value, config.max_behaviour_weight)
    gain = torch.where(counted.acted, gain, torch.zeros(()))
    per_episode = torch.stack([gain[data.episode == each].sum() for each in used])
    lower = bootstrap_lower_bound(per_episode, ALPHA, RESAMPLES, torch.Generator().manual_seed(seed))
    return OfflineGain(float(per_episode.mean()), float(lower), len(used))
