"""Advantage-weighted flow matching on logged episodes (arXiv 1910.00177).

A value function is fitted to the logged outcomes; each decision's flow loss is weighted by exp(advantage / beta),
capped. It imitates the better half of what was done; it cannot find what no episode shows, and it is not PPO.

Shape letters: M decisions of all episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from pirl_server.algorithm.awr import advantage_weight
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.model.critic import StateCritic
from pirl_server.model.layers.lora import merged_state_dict
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_dataset import EpisodeWindows, episode_windows, experience
from pirl_server.training.progress import Progress
from pirl_server.training.supervised.flow_matching import fit

FOLDS = 4


def finetune_episodes(
    checkpoint: Path, out: Path, episodes: Sequence[Episode], config: EpisodesConfig, seed: int, progress: Progress
) -> str:
    """Improve the checkpoint from episodes; return the new version.

    Dry runs are left out. Raises ValueError for too few labelled episodes, for all-success or all-failure logs and for
    another contract.
    """
    torch.manual_seed(seed)
    policy = FlowPolicy.load(checkpoint)
    labelled = [episode for episode in episodes if episode.info.success is not None]
    real = experience(labelled, progress)
    data = episode_windows(policy, real, config.gamma)
    _check_instructions(policy, real)
    _check(data, config, dry_runs=len(labelled) - len(real))
    advantage = data.returns - held_out_values(data, config.value_steps, seed)
    weight = advantage_weight(advantage, config.temperature, config.max_weight)
    progress.metrics(mean_weight=float(weight.mean()), max_weight=float(weight.max()), decisions=float(len(weight)))
    fit(policy, replace(data.windows, weight=weight), config, seed, progress)
    lineage = {"parent": policy.version, "method": "advantage-weighted flow matching", "config": str(asdict(config))}
    card = replace(policy.card, lineage=lineage, prefix_delay=config.prefix_delay)
    return save_checkpoint(out, card, merged_state_dict(policy.model), parent=checkpoint)


def held_out_values(data: EpisodeWindows, steps: int, seed: int) -> Tensor:
    """Value [M] of each decision by a critic that has not seen its episode.

    A critic that has would have learnt the outcome by heart and every advantage would be nearly 0.
    """
    value = torch.zeros_like(data.returns)
    generator = torch.Generator().manual_seed(seed)
    for fold in range(FOLDS):
        held_out = data.episode % FOLDS == fold
        if held_out.any():
            value[held_out] = _fit_value(data, ~held_out, steps, generator)[held_out]
    return value


def _fit_value(data: EpisodeWindows, train: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Regress returns on features and elapsed time over the `train` rows; predict all rows."""
    critic = StateCritic(data.windows.features.shape[1], hidden=64)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, weight_decay=1e-3)
    rows = torch.nonzero(train)[:, 0]
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (min(256, len(rows)),), generator=generator)]
        error = critic(data.windows.features[batch], data.elapsed[batch]) - data.returns[batch]
        optimizer.zero_grad(set_to_none=True)
        (error**2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        predicted: Tensor = critic(data.windows.features, data.elapsed)
    return predicted


def _check_instructions(policy: FlowPolicy, episodes: Sequence[Episode]) -> None:
    """Raise ValueError for a sentence that the policy has not been taught: logs make it better, not wider."""
    for said in (episode.info.instruction for episode in episodes):
        if said not in policy.instructions:
            known = "; ".join(policy.instructions)
            raise ValueError(f"instruction '{said}' is not one the policy was trained on: {known}")


def _check(data: EpisodeWindows, config: EpisodesConfig, dry_runs: int) -> None:
    count = int(data.episode.max()) + 1
    if count < config.min_episodes:
        besides = f"; {dry_runs} dry runs do not count" if dry_runs else ""
        raise ValueError(f"{count} labelled episodes, at least {config.min_episodes} are needed{besides}")
    successes = len(torch.unique(data.episode[data.returns > 0]))
    if successes in (0, count):
        raise ValueError(
            f"{successes} of {count} episodes succeeded: both successes and failures are needed to compare"
        )
