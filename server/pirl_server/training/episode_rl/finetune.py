"""RL on logged episodes: which of them count, the loop of a method over them, a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_dataset import experience, usable
from pirl_server.training.episode_rl.methods.advantage_weighted import AdvantageWeighted
from pirl_server.training.episode_rl.methods.method import MakeMethod
from pirl_server.training.master_weights import saved_weights
from pirl_server.training.progress import Progress
from pirl_server.training.supervised.flow_matching import fit
from pirl_server.training.train_state import TrainStateFolder


class TooFewEpisodesError(ValueError):
    """There are not as many episodes to learn from as the config wants."""


def finetune_episodes(
    checkpoint: Path,
    out: Path,
    episodes: Sequence[Episode],
    config: EpisodesConfig,
    seed: int,
    progress: Progress,
    make_method: MakeMethod = AdvantageWeighted,
    states: TrainStateFolder | None = None,
) -> str:
    """Improve the checkpoint from episodes; return the new version.

    Dry runs are left out. A run that finds its state in `states` continues from there. Raises ValueError for too few
    labelled episodes, for ones that the method can't learn from and for another contract.
    """
    torch.manual_seed(seed)
    policy = FlowPolicy.load(checkpoint)
    labelled = [episode for episode in episodes if episode.info.success is not None]
    real = experience(labelled, progress)
    found = usable(policy, real)
    _check_instructions(policy, real)
    _check_count(len(found), config, dry_runs=len(labelled) - len(real))
    method = make_method(policy, config, seed, progress)
    fit(policy, method.prepare(found), config, seed, progress, method.loss, states)
    weights, dtype = saved_weights(policy.model, config.saved_dtype, checkpoint)
    lineage = {"parent": policy.version, "method": method.name, "config": str(asdict(config))} | dtype
    card = replace(policy.card, lineage=lineage, prefix_delay=config.prefix_delay)
    return save_checkpoint(out, card, weights, parent=checkpoint)


def _check_instructions(policy: FlowPolicy, episodes: Sequence[Episode]) -> None:
    """Raise ValueError for a sentence that the policy has not been taught: logs make it better, not wider."""
    for said in (episode.info.instruction for episode in episodes):
        if said not in policy.instructions:
            known = "; ".join(policy.instructions)
            raise ValueError(f"instruction '{said}' is not one the policy was trained on: {known}")


def _check_count(count: int, config: EpisodesConfig, dry_runs: int) -> None:
    if count < config.min_episodes:
        besides = f"; {dry_runs} dry runs do not count" if dry_runs else ""
        raise TooFewEpisodesError(f"{count} labelled episodes, at least {config.min_episodes} are needed{besides}")
