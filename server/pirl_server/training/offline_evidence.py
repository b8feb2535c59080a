"""Compares base and result of a run on the episodes that it held out, as evidence for the promotion gate."""

from __future__ import annotations

import math
from pathlib import Path

from pirl_server.atomic_files import utc_now
from pirl_server.config.training import EpisodesConfig
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.registry.offline_evidence import ActionError, GainBound, OfflineEvidence
from pirl_server.training.action_error import UNIT, action_errors, good_windows
from pirl_server.training.episode_log import EpisodeLog
from pirl_server.training.episode_rl.methods.method import Archive
from pirl_server.training.episode_rl.methods.ppo_logged import PpoLogged
from pirl_server.training.episode_rl.offline_gain import offline_gain


def measure(
    base: Path, result: Path, held_out: EpisodeLog, config: EpisodesConfig, seed: int, archive: Archive, job: str = ""
) -> OfflineEvidence:
    """Measure the action error, and what PPO gained.

    Raises ValueError when the result draws actions that are not finite: no version may be made of it.
    """
    old, new = FlowPolicy.load(base, config.device), FlowPolicy.load(result, config.device)
    evidence = OfflineEvidence(new.version, old.version, utc_now(), job, len(held_out))
    if not held_out:
        return evidence
    error = _action_error(old, new, held_out, config)
    bound = None
    if _by_ppo(new):
        bound = _gain(old, new, held_out, config, seed, archive)
    return OfflineEvidence(new.version, old.version, evidence.created, job, len(held_out), error, bound)


def _action_error(old: FlowPolicy, new: FlowPolicy, held_out: EpisodeLog, config: EpisodesConfig) -> ActionError | None:
    windows = good_windows(old, held_out)
    if not windows:
        return None
    before, after = (tuple(action_errors(policy, windows, old)) for policy in (old, new))
    if not all(map(math.isfinite, after)):
        bad = sum(not math.isfinite(each) for each in after)
        raise ValueError(
            f"the result draws actions that are not finite on {bad} of {len(after)} held-out episodes: no version was"
            f" made; lower {'max_kl' if _by_ppo(new) else 'learning_rate'}"
        )
    return ActionError(before, after, UNIT, config.max_action_error)


def _by_ppo(policy: FlowPolicy) -> bool:
    return policy.card.lineage.get("method") == PpoLogged.name


def _gain(
    old: FlowPolicy, new: FlowPolicy, held_out: EpisodeLog, config: EpisodesConfig, seed: int, archive: Archive
) -> GainBound | None:
    found = offline_gain(old, new, held_out, config, seed, archive)
    return None if found is None else GainBound(found.mean, found.lower, found.episodes, config.max_offline_loss)
