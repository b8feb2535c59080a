"""Advantage-conditioned flow matching (RECAP, arXiv 2511.14759): learns from all of a log, the bad half too.

A distributional value predicts the normalised time to success. What a window gained on it over the next steps is its
advantage; the best share of each task's windows, as far as they gained, and every human's, are marked as good in the
prompt, the others as bad. Flow matching learns both, and the policy is asked for the good ones. No density is needed.

Shape letters: M windows, N bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from pirl_server.algorithm.distributional import bin_centres, cross_entropy, expected, two_hot
from pirl_server.algorithm.metrics import explained_variance
from pirl_server.algorithm.recap import better_than_usual, keep_condition, lookahead_advantage
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.model.critic import StateCritic
from pirl_server.policy.condition import conditioned, without_condition
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_dataset import EpisodeWindows, episode_windows
from pirl_server.training.episode_log import MoreEpisodesNeededError
from pirl_server.training.episode_rl.methods.method import FlowMatchingMethod, Trained
from pirl_server.training.episode_rl.values import critic_reading, held_out
from pirl_server.training.train_state import TrainStateFolder
from pirl_server.training.window_mixture import sampling_share

BINS = 201
"""over -1 (failure) and -0.5 (success after the longest episode) to 0 (success now)"""


@dataclass(frozen=True, kw_only=True)
class ConditionedWindows(ChunkDataset):
    """Windows whose prompt says whether they are good; when one is drawn it may lose that, to train the plain branch.

    `draw` writes the drawn rows of `prompt`: what was there before does not matter.
    """

    marked: Tensor
    """[M] int64: row of `tokens` with the mark"""
    plain: Tensor
    """[M] int64: without it"""
    good: Tensor
    """[M] bool"""
    dropout: float

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Row numbers [count] int64 of a minibatch, whose prompts are chosen with them."""
        rows = super().draw(count, generator)
        keep = keep_condition(count, self.dropout, generator)
        self.prompt[rows] = torch.where(keep, self.marked[rows], self.plain[rows])
        return rows


class Recap(FlowMatchingMethod[ConditionedWindows]):
    """See `Method`."""

    name = "advantage-conditioned flow matching"

    def prepare(self, episodes: Sequence[Episode]) -> ConditionedWindows:
        """Windows with their marks. Raises MoreEpisodesNeededError where none is better than another."""
        data = episode_windows(self.policy, episodes, self.unlabelled)
        advantage, numbers = self.gain(data)
        good = marks(data, advantage, self.config.positive_share)
        if not good.any():
            raise MoreEpisodesNeededError(
                f"none of {len(good)} windows gained anything: there is nothing good to ask for; log more episodes"
            )
        self.progress.metrics(
            windows=float(len(data)), good_share=float(good.float().mean()), of_humans=float(data.human.float().mean()),
            **numbers,
        )  # fmt: skip
        return marked_windows(self.policy, data, good, self.config)

    def gain(self, data: EpisodeWindows) -> tuple[Tensor, dict[str, float]]:
        """Advantage of each window [M], and numbers about how it was found.

        Raises MoreEpisodesNeededError for logs of one outcome.
        """
        if not ((data.outcome == 1.0).any() and (data.outcome == 0.0).any()):
            raise MoreEpisodesNeededError(
                f"{len(data.infos)} episodes have one outcome: recap needs both successes and failures to know"
                " better from worse; filtered_bc imitates successes alone"
            )
        advantage, explained = advantages(self.policy, data, self.config, self.seed)
        return advantage, {"held_out_explained_variance": explained}

    def train(self, data: ConditionedWindows, states: TrainStateFolder | None) -> Trained:
        """Minimise flow matching's error; the result is asked for good actions."""
        trained = super().train(data, states)
        return replace(trained, card=replace(trained.card, guidance=self.config.guidance))


def normalised_returns(data: EpisodeWindows) -> tuple[Tensor, Tensor]:
    """Return [M] of each window and the steps that are 1 for its task [M]: twice those of the task's longest episode.

    Minus the steps to success over those; -1 of a failure, NaN where the outcome is not known.
    """
    longest = torch.zeros(len(data.instructions))
    longest.scatter_reduce_(0, data.task, (data.start + data.steps_left).float(), "amax")
    scale = 2.0 * longest[data.task].clamp(min=1.0)
    returns = torch.where(data.outcome == 1.0, -(data.steps_left / scale), -torch.ones(()))
    return torch.where(data.outcome.isnan(), data.outcome, returns), scale


def advantages(policy: FlowPolicy, data: EpisodeWindows, config: EpisodesConfig, seed: int) -> tuple[Tensor, float]:
    """Gain on the value over `config.lookahead` steps [M], by critics that have not seen the episode.

    Also those critics' explained variance.
    """
    returns, scale = normalised_returns(data)
    centres, known = bin_centres(BINS, -1.0, 0.0), ~torch.isnan(returns)
    target = two_hot(torch.where(known, returns, -torch.ones(())), centres)
    reading = critic_reading(policy, data.windows, data.task, data.elapsed)

    def critic() -> nn.Module:
        return StateCritic(reading.shape[1] - 1, hidden=64, outputs=BINS)

    def fit(logits: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(logits, target[rows])

    value = expected(held_out(reading, data.episode, known, critic, fit, config.value_steps, seed), centres)
    then = looked_ahead(data, config.lookahead)
    passed = -(data.start[then] - data.start) / scale
    reward = torch.where(then >= 0, passed, torch.where(known, returns, -torch.ones(())))
    return lookahead_advantage(reward, value, then), float(explained_variance(value, returns.nan_to_num(-1.0), known))


def looked_ahead(data: EpisodeWindows, ahead: int) -> Tensor:
    """Window [M] int64 `ahead` steps on, the first one from there; -1 where the end or a takeover comes first."""
    found = torch.full((len(data),), -1)
    stretch = stretches(data)
    for each in torch.unique(stretch):
        mine = torch.nonzero(stretch == each)[:, 0]
        mine = mine[data.start[mine].argsort()]
        then = torch.searchsorted(data.start[mine], data.start[mine] + ahead)
        inside = then < len(mine)
        found[mine[inside]] = mine[then[inside]]
    return found


def stretches(data: EpisodeWindows) -> Tensor:
    """Number [M] int64 of what each window is credited with: its episode up to the end, or up to a takeover."""
    end = data.start + data.steps_left
    return data.episode * (int(end.max()) + 1) + end


def marks(data: EpisodeWindows, advantage: Tensor, positive: float) -> Tensor:
    """Which windows are good [M] bool: at most `positive` of the policy's of each task, and every human's."""
    good = torch.zeros(len(data), dtype=torch.bool)
    for task in torch.unique(data.task):
        mine = data.task == task
        good[mine] = better_than_usual(advantage[mine], data.human[mine], positive)
    return good


def marked_windows(
    policy: FlowPolicy, data: EpisodeWindows, good: Tensor, config: EpisodesConfig
) -> ConditionedWindows:
    """Windows with a prompt of each kind; `good` is [M] bool."""
    said = [data.instructions[task] for task in data.task.tolist()]
    marked = [conditioned(each, better) for each, better in zip(said, good.tolist())]
    processor, parts = without_condition(policy.processor), []
    for sentences in (marked, said):
        if processor.state_in_prompt:
            tokens, mask = processor.prompts(sentences, data.state.numpy())
            parts.append((tokens, mask, torch.arange(len(sentences))))
        else:
            number = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
            nothing = data.state[:1].numpy().repeat(len(number), axis=0)
            tokens, mask = processor.prompts(tuple(number), nothing)
            parts.append((tokens, mask, torch.tensor([number[each] for each in sentences])))
    columns = {field.name: getattr(data.windows, field.name) for field in fields(data.windows)}
    columns |= {"tokens": torch.cat([parts[0][0], parts[1][0]]), "token_mask": torch.cat([parts[0][1], parts[1][1]])}
    columns |= {"prompt": parts[0][2].clone(), "share": sampling_share(data, config)}
    plain = parts[1][2] + len(parts[0][0])
    return ConditionedWindows(**columns, marked=parts[0][2], plain=plain, good=good, dropout=config.condition_dropout)
