"""RL on logged episodes: which of them count, the loop of a method over them, a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

import torch

from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_dataset import usable
from pirl_server.training.episode_log import EpisodeLog, MoreEpisodesNeededError, experience
from pirl_server.training.episode_rl.behaviour import ages
from pirl_server.training.episode_rl.methods.by_name import METHODS
from pirl_server.training.episode_rl.methods.method import Archive, MakeMethod, Run, no_archive
from pirl_server.training.episode_selection import unknown_instruction
from pirl_server.training.master_weights import saved_weights
from pirl_server.training.method_choice import Choice, choose
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
    *,
    new_instructions: bool = False,
    lineage: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Improve the checkpoint from episodes by the config's method, or by `make_method`; return the new version.

    Dry runs are left out. `archive` finds the checkpoints that earlier episodes were drawn by. A run that finds its
    state in `states` continues from there. With `new_instructions` the sentences that the policy does not know are
    added to its own. `lineage` is recorded with the result. Raises ValueError for too few labelled episodes, for ones
    that the method can't learn from, for another contract, and for a sentence that is new without `new_instructions`.
    """
    torch.manual_seed(seed)
    policy = FlowPolicy.load(checkpoint)
    chosen = _choice(config, policy, episodes, archive)
    progress.progress(0, 1, f"method {chosen.method}: {chosen.why}")
    method = (make_method or METHODS[chosen.method])(Run(policy, config, seed, progress, archive))
    labelled = EpisodeLog.of(episodes).where(lambda each: each.labelled or method.unlabelled)
    real = experience(labelled, progress)
    found = usable(policy, real, method.unlabelled)
    said = _instructions(policy, found, new_instructions)
    _check_count(len(found), config, dry_runs=len(labelled) - len(real))
    trained = method.train(method.prepare(found), states)
    made = {"parent": policy.version, "method": method.name, "chosen": chosen.why, "config": str(asdict(config))}
    weights, dtype = saved_weights(policy.model, config.saved_dtype, checkpoint)
    made |= dict(trained.lineage) | dtype
    card = replace(trained.card, lineage=made | found.lineage() | dict(lineage), instructions=said)
    return save_checkpoint(out, card, weights, parent=checkpoint, noise_actor=trained.noise_actor)


def _choice(config: EpisodesConfig, policy: FlowPolicy, episodes: Sequence[Episode], archive: Archive) -> Choice:
    """The config's method, or the one that fits the episodes."""
    if config.method != "auto":
        return Choice(config.method, "as configured")
    fresh = ages(policy, archive, config.max_age)
    real = [each for each in EpisodeLog.of(episodes).facts if not each.info.dry_run]
    return choose(real, fresh)


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
        raise MoreEpisodesNeededError(f"{count} labelled episodes, at least {config.min_episodes} are needed{besides}")
