"""RL on logged episodes: which of them count, the loop of a method over them, a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

import torch

from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.model.layers.lora import merged_state_dict
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_dataset import usable
from pirl_server.training.episode_log import EpisodeLog, experience
from pirl_server.training.episode_rl.methods.advantage_weighted import AdvantageWeighted
from pirl_server.training.episode_rl.methods.method import MakeMethod
from pirl_server.training.episode_selection import unknown_instruction
from pirl_server.training.progress import Progress
from pirl_server.training.supervised.flow_matching import fit
from pirl_server.training.train_state import TrainStateFolder


def finetune_episodes(
    checkpoint: Path,
    out: Path,
    episodes: Sequence[Episode],
    config: EpisodesConfig,
    seed: int,
    progress: Progress,
    make_method: MakeMethod = AdvantageWeighted,
    states: TrainStateFolder | None = None,
    *,
    new_instructions: bool = False,
    lineage: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Improve the checkpoint from episodes; return the new version.

    Dry runs are left out. A run that finds its state in `states` continues from there. With `new_instructions` the
    sentences that the policy does not know are added to its own. `lineage` is recorded with the result. Raises
    ValueError for too few labelled episodes, for ones that the method can't learn from, for another contract, and for
    a sentence that is new without `new_instructions`.
    """
    torch.manual_seed(seed)
    policy = FlowPolicy.load(checkpoint)
    labelled = EpisodeLog.of(episodes).where(lambda each: each.labelled)
    real = experience(labelled, progress)
    found = usable(policy, real)
    said = _instructions(policy, found, new_instructions)
    _check_count(len(found), config, dry_runs=len(labelled) - len(real))
    method = make_method(policy, config, seed, progress)
    fit(policy, method.prepare(found), config, seed, progress, method.loss, states)
    made = {"parent": policy.version, "method": method.name, "config": str(asdict(config))}
    recorded = made | found.lineage() | dict(lineage)
    card = replace(policy.card, lineage=recorded, instructions=said, prefix_delay=config.prefix_delay)
    return save_checkpoint(out, card, merged_state_dict(policy.model), parent=checkpoint)


def _instructions(policy: FlowPolicy, log: EpisodeLog, new: bool) -> tuple[str, ...]:
    """Sentences that the result knows. Raises ValueError for one that the policy does not, unless `new` may be."""
    said = {each.info.instruction for each in log.facts}
    unknown = sorted(said - set(policy.instructions))
    if unknown and not new:
        raise ValueError(unknown_instruction(unknown[0], policy.instructions))
    return (*policy.instructions, *unknown)


def _check_count(count: int, config: EpisodesConfig, dry_runs: int) -> None:
    if count < config.min_episodes:
        besides = f"; {dry_runs} dry runs do not count" if dry_runs else ""
        raise ValueError(f"{count} labelled episodes, at least {config.min_episodes} are needed{besides}")
