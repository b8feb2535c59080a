"""Logged episodes as training samples: what was executed at each step, who drove, and what it led to.

Works for any log: no density is needed, so deterministic serving, takeovers and altered steps all count. What counts
as the action is what was executed, not what was sampled. In a dry run nothing was: no learner reads one.

The policy has a window at each call whose chunk was played: its targets are what was executed of that chunk. A person
has one at every step, because the state is recorded at each; for a policy that sees, at the calls made during a
takeover, because images are there alone.

Shape letters: M windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pirl_contract import ControlSource
from pirl_server.episodes.schema import Episode, EpisodeInfo
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset, ImageRows, make_windows
from pirl_server.training.episode_cut import Part, cut
from pirl_server.training.episode_log import EpisodeLog

SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class EpisodeWindows:
    """Windows of all episodes, in time order within each episode.

    A window belongs to who drove its first action, POLICY or HUMAN; actions of the other are no targets of it.
    """

    windows: ChunkDataset
    """weights are ones; the learner sets them"""
    infos: tuple[EpisodeInfo, ...]
    """of the episodes, by number"""
    instructions: tuple[str, ...]
    """distinct sentences: the tasks"""
    versions: tuple[str, ...]
    """policy versions that are met"""
    episode: Tensor
    """[M] int64: number of the episode"""
    start: Tensor
    """[M] int64: step of the window's first action; below 0 where the observation lies before the first recorded one"""
    call: Tensor
    """[M] int64: the episode's call whose observation it is; -1: none, the recorded state"""
    source: Tensor
    """[M] int64 `ControlSource` of the first recorded action: POLICY or HUMAN"""
    outcome: Tensor
    """[M] what it led to: 1 success, 0 failure, NaN: not known (no label, or a later takeover)"""
    before_takeover: Tensor
    """[M] bool: the policy's, in the last 2 s before a takeover: a failure, whatever the label"""
    bootstrap: Tensor
    """[M] int64: the window whose value continues this one's return; -1: the end is a true end"""
    steps_left: Tensor
    """[M] int64 from `start` to the end of what it is credited with: of the episode, or the takeover"""
    seconds_left: Tensor
    """[M] the same in s"""
    decisions_left: Tensor
    """[M] int64 the same in whole chunks of the episode's execute_horizon, without the first"""
    elapsed: Tensor
    """[M] steps before this one, over the longest episode's"""
    task: Tensor
    """[M] int64: number of the instruction"""
    version: Tensor
    """[M] int64: number of the policy version whose chunk was played; -1: a human's"""
    age_days: Tensor
    """[M] of the episode, counted from the newest one"""
    state: Tensor
    """[M, S] of the observation, in the contract's units"""

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def terminal(self) -> Tensor:
        """[M] bool: the return is complete; False: it continues with the value of `bootstrap`."""
        return self.bootstrap < 0

    @property
    def human(self) -> Tensor:
        """[M] bool: driven by a human."""
        return self.source == int(ControlSource.HUMAN)

    def returns(self, gamma: float) -> Tensor:
        """Return [M] gamma^(decisions left) of a success, 0 of a failure and where the return is not complete."""
        return torch.where(self.terminal, gamma**self.decisions_left * self.outcome, torch.zeros(len(self)))

    def bootstrap_discount(self, gamma: float) -> Tensor:
        """Return [M] what the value of `bootstrap` counts in the return: gamma^(decisions until then); 0 at an end."""
        until = self.decisions_left - self.decisions_left[self.bootstrap.clamp(min=0)]
        return torch.where(self.terminal, torch.zeros(len(self)), gamma ** until.float())


def episode_windows(policy: FlowPolicy, episodes: Iterable[Episode], unlabelled: bool = False) -> EpisodeWindows:
    """Cut episodes into windows, reading them once, one at a time.

    Dry runs, episodes without a window and, unless `unlabelled`, ones without a label are left out. Raises ValueError
    when none is left, and when an episode's contract is not the policy's.
    """
    sees = policy.card.model.vision is not None
    parts, infos, images = list[Part](), list[EpisodeInfo](), ImageRows(policy)
    for episode in episodes:
        if not _teaches(episode, unlabelled):
            continue
        check_contract(policy, episode.info)
        part = cut(episode, policy.horizon, sees)
        if len(part.rows["start"]):
            parts.append(part)
            infos.append(episode.info)
            images.add(episode.calls.images, part.rows["call"])
    if not parts:
        raise ValueError("no labelled episode to learn from: end episodes with success or failure")
    sentences = [info.instruction for info, part in zip(infos, parts) for _ in part.rows["start"]]
    state = np.concatenate([part.state for part in parts])
    windows = make_windows(
        policy,
        state,
        sentences,
        np.concatenate([part.actions for part in parts]),
        images.finish(),
        np.concatenate([part.valid for part in parts]),
    )
    return _joined(windows, infos, [part.rows for part in parts], sentences, state)


def usable(policy: FlowPolicy, log: EpisodeLog, unlabelled: bool = False) -> EpisodeLog:
    """Labelled episodes, or with `unlabelled` any, with a step that may be learnt.

    Raises ValueError when there is none, and when one's contract is not the policy's.
    """
    found = log.where(lambda each: (each.labelled or unlabelled) and not each.info.dry_run and each.targets > 0)
    for each in found.facts:
        check_contract(policy, each.info)
    if not found:
        raise ValueError("no labelled episode to learn from: end episodes with success or failure")
    return found


def check_contract(policy: FlowPolicy, info: EpisodeInfo) -> None:
    """Raise ValueError when the episode was logged under another contract than the policy's."""
    if difference := policy.contract.difference(info.contract):
        raise ValueError(f"episode {info.id} was logged under a different contract: {difference[0]}")


def _teaches(episode: Episode, unlabelled: bool = False) -> bool:
    info = episode.info
    return (unlabelled or info.success is not None) and not info.dry_run


def _joined(
    windows: ChunkDataset,
    infos: Sequence[EpisodeInfo],
    parts: list[Mapping[str, NDArray[Any]]],
    sentences: list[str],
    state: NDArray[np.float32],
) -> EpisodeWindows:
    """Columns of all episodes, their numbers made those of the whole."""
    counts = np.array([len(part["start"]) for part in parts])
    episode, before = np.repeat(np.arange(len(parts)), counts), np.repeat(np.cumsum(counts) - counts, counts)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["bootstrap"] = np.where(columns["bootstrap"] < 0, -1, columns["bootstrap"] + before)
    columns["elapsed"] = columns["elapsed"] / np.float32(max(1.0, columns["elapsed"].max()))
    versions = list(dict.fromkeys(each for info in infos for each in info.policy_versions))
    # the last number is that of -1, a human's; an imported episode has no version at all
    number_of = [np.array([*map(versions.index, info.policy_versions), -1]) for info in infos]
    columns["version"] = np.concatenate([numbers[part["version"]] for part, numbers in zip(parts, number_of)])
    instructions = list(dict.fromkeys(sentences))
    number = {sentence: index for index, sentence in enumerate(instructions)}
    columns |= {"episode": episode, "task": np.array([number[each] for each in sentences])}
    columns["age_days"], columns["state"] = _ages(infos)[episode], state
    tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in columns.items()}
    return EpisodeWindows(windows, tuple(infos), tuple(instructions), tuple(versions), **tensors)


def _ages(infos: Sequence[EpisodeInfo]) -> NDArray[np.float32]:
    created = [datetime.fromisoformat(info.created).timestamp() for info in infos]
    return ((max(created) - np.array(created)) / SECONDS_PER_DAY).astype(np.float32)
