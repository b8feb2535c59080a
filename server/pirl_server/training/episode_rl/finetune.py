"""RL on logged episodes: which of them count, the loop of a method over them, a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.model.layers.lora import merged_state_dict
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_dataset import experience, usable
from pirl_server.training.episode_rl.methods.by_name import METHODS
from pirl_server.training.episode_rl.methods.method import Archive, MakeMethod, Run, no_archive
from pirl_server.training.progress import Progress
from pirl_server.training.train_state import TrainStateFolder


def finetune_episodes(
    checkpoint: Path,
    out: Path,
    episodes: Sequence[Episode],
    config: EpisodesConfig,
    seed: int,
    progress: Progress,
    make_method: MakeMethod | None = None,
    states: TrainStateFolder | None = None,
    archive: Archive = no_archive,
) -> str:
    """Improve the checkpoint from episodes by the config's method, or by `make_method`; return the new version.

    Dry runs are left out. `archive` finds the checkpoints that earlier episodes were drawn by. A run that finds its
    state in `states` continues from there. Raises ValueError for too few labelled episodes, for ones that the method
    can't learn from and for another contract.
    """
    torch.manual_seed(seed)
    policy = FlowPolicy.load(checkpoint)
    labelled = [episode for episode in episodes if episode.info.success is not None]
    real = experience(labelled, progress)
    found = usable(policy, real)
    _check_instructions(policy, real)
    _check_count(len(found), config, dry_runs=len(labelled) - len(real))
    method = (make_method or METHODS[config.method])(Run(policy, config, seed, progress, archive))
    trained = method.train(method.prepare(found), states)
    lineage = {"parent": policy.version, "method": method.name, "config": str(asdict(config)), **trained.lineage}
    card = replace(trained.card, lineage=lineage)
    return save_checkpoint(out, card, merged_state_dict(policy.model), parent=checkpoint)


def _check_instructions(policy: FlowPolicy, episodes: Sequence[Episode]) -> None:
    """Raise ValueError for a sentence that the policy has not been taught: logs make it better, not wider."""
    for said in (episode.info.instruction for episode in episodes):
        if said not in policy.instructions:
            known = "; ".join(policy.instructions)
            raise ValueError(f"instruction '{said}' is not one the policy was trained on: {known}")


def _check_count(count: int, config: EpisodesConfig, dry_runs: int) -> None:
    if count < config.min_episodes:
        besides = f"; {dry_runs} dry runs do not count" if dry_runs else ""
        raise ValueError(f"{count} labelled episodes, at least {config.min_episodes} are needed{besides}")
