"""Advantage-weighted flow matching (arXiv 1910.00177): learns from any log, whatever policy or human made it.

A value function is fitted to the logged outcomes; each decision's flow loss is weighted by exp(advantage / beta),
capped. It imitates the better half of what was done; it cannot find what no episode shows, and it is not PPO.

Shape letters: M decisions of all episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pirl_server.algorithm.awr import advantage_weight
from pirl_server.episodes.schema import Episode
from pirl_server.model.critic import StateCritic
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_dataset import EpisodeWindows, episode_windows
from pirl_server.training.episode_rl.methods.method import FlowMatchingMethod
from pirl_server.training.window_mixture import sampling_share

FOLDS = 4


class AdvantageWeighted(FlowMatchingMethod[ChunkDataset]):
    """See `Method`."""

    name = "advantage-weighted flow matching"

    def prepare(self, episodes: Sequence[Episode]) -> ChunkDataset:
        """Windows weighted by advantage. Raises ValueError for all-success or all-failure logs."""
        _check_outcomes(episodes)
        config, data = self.config, episode_windows(self.policy, episodes)
        returns = data.returns(config.gamma)
        advantage = returns - held_out_values(data, returns, config.value_steps, self.seed)
        weight = advantage_weight(advantage, config.temperature, config.max_weight)
        self.progress.metrics(
            mean_weight=float(weight.mean()), max_weight=float(weight.max()), decisions=float(len(weight))
        )
        return replace(data.windows, weight=weight, share=sampling_share(data, config))


def held_out_values(data: EpisodeWindows, returns: Tensor, steps: int, seed: int) -> Tensor:
    """Value [M] of each window, whose returns are `returns` [M], by a critic that has not seen its episode.

    One that has seen it overfits the outcome, and every advantage would be nearly 0.
    """
    value = torch.zeros_like(returns)
    generator = torch.Generator().manual_seed(seed)
    for fold in range(FOLDS):
        held_out = data.episode % FOLDS == fold
        if held_out.any():
            value[held_out] = _fit_value(data, returns, ~held_out, steps, generator)[held_out]
    return value


def _fit_value(data: EpisodeWindows, returns: Tensor, train: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Regress returns on features and elapsed time over the `train` rows; predict all rows."""
    critic = StateCritic(data.windows.features.shape[1], hidden=64)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, weight_decay=1e-3)
    rows = torch.nonzero(train)[:, 0]
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (min(256, len(rows)),), generator=generator)]
        error = critic(data.windows.features[batch], data.elapsed[batch]) - returns[batch]
        optimizer.zero_grad(set_to_none=True)
        (error**2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        predicted: Tensor = critic(data.windows.features, data.elapsed)
    return predicted


def _check_outcomes(episodes: Sequence[Episode]) -> None:
    count, successes = len(episodes), sum(bool(episode.info.success) for episode in episodes)
    if successes in (0, count):
        raise ValueError(
            f"{successes} of {count} episodes succeeded: both successes and failures are needed to compare"
        )
