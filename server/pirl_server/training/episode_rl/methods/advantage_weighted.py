"""Advantage-weighted flow matching (arXiv 1910.00177): learns from any log, whatever policy or human made it.

A value function is fitted to the logged outcomes of the policy's windows; each one's flow loss is weighted by
exp(advantage / beta), capped. It imitates the better half of what was done; it cannot find what no episode shows, and
it is not PPO. What a human did has the cap as its weight: a person is not judged by what the policy would have reached.

Shape letters: M windows of all episodes, F what a critic reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pirl_server.algorithm.awr import advantage_weight
from pirl_server.algorithm.metrics import effective_sample_size
from pirl_server.episodes.schema import Episode
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_dataset import EpisodeWindows, episode_windows
from pirl_server.training.episode_log import MoreEpisodesNeededError
from pirl_server.training.episode_rl.methods.method import FlowMatchingMethod
from pirl_server.training.episode_rl.values import critic_reading, held_out_values
from pirl_server.training.window_mixture import sampling_share


class AdvantageWeighted(FlowMatchingMethod[ChunkDataset]):
    """See `Method`."""

    name = "advantage-weighted flow matching"

    def prepare(self, episodes: Sequence[Episode]) -> ChunkDataset:
        """Windows weighted by advantage. Raises ValueError when the policy's windows have one outcome only."""
        config, data = self.config, episode_windows(self.policy, episodes)
        _check_outcomes(data)
        reading = critic_reading(self.policy, data.windows, data.task, data.elapsed)
        advantage, explained = held_out_advantages(data, reading, config.gamma, config.value_steps, self.seed)
        scaled = scaled_per_task(advantage, data.task, ~data.human)
        weight = advantage_weight(scaled, config.temperature, config.max_weight)
        weight = torch.where(data.human, torch.full_like(weight, config.max_weight), weight)
        self.progress.metrics(
            windows=float(len(weight)),
            of_humans=float(data.human.sum()),
            mean_weight=float(weight.mean()),
            max_weight=float(weight.max()),
            weight_ess=float(effective_sample_size(weight, torch.ones_like(data.human))),
            explained_variance=explained,
        )
        return replace(data.windows, weight=weight, share=sampling_share(data, config))


def held_out_advantages(
    data: EpisodeWindows, reading_MF: Tensor, gamma: float, steps: int, seed: int
) -> tuple[Tensor, float]:
    """Return minus value [M] by critics that have not seen the episode, and the critics' explained variance.

    A return that is not complete continues with the value of a critic fitted to those that are. Where a window
    continues with itself nothing is known of it: its advantage is 0.
    """
    returns, discount = data.returns(gamma), data.bootstrap_discount(gamma)
    policys, after = ~data.human, data.bootstrap.clamp(min=0)
    value, explained = held_out_values(reading_MF, returns, data.episode, policys & data.terminal, steps, seed)
    if data.terminal.all():
        return returns - value, explained
    target = returns + discount * value[after]
    known = policys & (data.terminal | (after != torch.arange(len(data))))
    value, explained = held_out_values(reading_MF, target, data.episode, known, steps, seed)
    return returns + discount * value[after] - value, explained


def scaled_per_task(advantage_M: Tensor, task_M: Tensor, counted_M: Tensor) -> Tensor:
    """Advantages whose spread over the counted windows of each task is that over all of them [M].

    Without it the task with the larger differences has the loss to itself. One task stays as it is.
    """
    scaled_M, whole = advantage_M.clone(), advantage_M[counted_M].std(correction=0)
    for task in torch.unique(task_M):
        mine_M = task_M == task
        spread = advantage_M[mine_M & counted_M].std(correction=0)
        if spread > 0:
            scaled_M[mine_M] = advantage_M[mine_M] * (whole / spread)
    return scaled_M


def _check_outcomes(data: EpisodeWindows) -> None:
    outcomes = data.outcome[~data.human]
    if not ((outcomes == 1.0).any() and (outcomes == 0.0).any()):
        successes = sum(bool(info.success) for info in data.infos)
        raise MoreEpisodesNeededError(
            f"{successes} of {len(data.infos)} episodes succeeded: both successes and failures of the policy are needed"
            " to compare"
        )
