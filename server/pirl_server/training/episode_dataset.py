"""Logged episodes as training samples with advantages: executed actions, weighted by the outcome.

Works for any log: no density is needed, so deterministic serving, takeovers and altered steps all count. What counts
as the action is what was executed, not what was sampled. In a dry run nothing was: no learner reads one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset, make_windows, stack_images
from pirl_server.training.progress import Progress

NOT_EXECUTED = "in a dry run no action reaches the arm; launch the robot with dry_run:=false"


@dataclass(frozen=True)
class EpisodeWindows:
    """One window per decision, in time order within each episode."""

    windows: ChunkDataset
    """weights are ones; the learner sets them"""
    returns: Tensor
    """[M] discounted outcome from the decision on: gamma^(decisions left) on success, 0 on failure"""
    elapsed: Tensor
    """[M] decisions before this one, over the longest episode's"""
    episode: Tensor
    """[M] number of the episode"""


def experience(episodes: Iterable[Episode], progress: Progress) -> list[Episode]:
    """Return the episodes in which actions reached an arm, and report how many did not.

    Raises ValueError when there are dry runs only.
    """
    kept, dry_runs = list[Episode](), 0
    for episode in episodes:
        if episode.info.dry_run:
            dry_runs += 1
        else:
            kept.append(episode)
    if dry_runs and not kept:
        raise ValueError(f"no training data: each of {dry_runs} episodes is a dry run: {NOT_EXECUTED}")
    if dry_runs:
        progress.metrics(dry_runs_left_out=float(dry_runs))
        progress.progress(
            len(kept), len(kept), f"{dry_runs} of {dry_runs + len(kept)} episodes left out: {NOT_EXECUTED}"
        )
    return kept


def episode_windows(policy: FlowPolicy, episodes: Iterable[Episode], gamma: float) -> EpisodeWindows:
    """Cut labelled episodes at their decisions; unlabelled ones, dry runs and ones without a decision are left out.

    Raises ValueError when none is left, and when an episode's contract is not the policy's.
    """
    states, sentences, chunks, returns, elapsed, number, images = [], [], [], [], [], [], []
    for index, episode in enumerate(usable(policy, episodes)):
        played = np.flatnonzero(episode.calls.step >= 0)
        # Played by time, a chunk is entered further on: its first actions were executed while the policy thought.
        entered = episode.calls.step[played]
        starts = np.maximum(0, entered - episode.steps.index[entered])
        chunks += [_window(episode.steps.executed, start, policy.horizon) for start in starts]
        states.append(episode.calls.state[played])
        sentences += [episode.info.instruction] * len(played)
        left = np.arange(len(played))[::-1]
        returns.append(gamma**left if episode.info.success else np.zeros(len(played)))
        elapsed.append(np.arange(len(played)))
        number += [index] * len(played)
        images.append({name: view[played] for name, view in episode.calls.images.items()})
    steps = np.concatenate(elapsed).astype(np.float32)
    pictures = stack_images(policy, images)
    return EpisodeWindows(
        make_windows(policy, np.concatenate(states), sentences, np.stack(chunks), pictures),
        torch.from_numpy(np.concatenate(returns).astype(np.float32)),
        torch.from_numpy(steps / max(1.0, steps.max())),
        torch.tensor(number),
    )


def usable(policy: FlowPolicy, episodes: Iterable[Episode]) -> list[Episode]:
    """Labelled episodes with a decision that reached an arm.

    Raises ValueError when there is none, and when one's contract is not the policy's.
    """
    found = [each for each in episodes if _teaches(each)]
    for episode in found:
        _check(policy, episode)
    if not found:
        raise ValueError("no labelled episode to learn from: end episodes with success or failure")
    return found


def _teaches(episode: Episode) -> bool:
    info = episode.info
    return info.success is not None and not info.dry_run and bool((episode.calls.step >= 0).any())


def _window(executed_TD: np.ndarray, start: int, horizon: int) -> np.ndarray:
    """H executed actions from `start`; past the end the arm stands still and the gripper stays as it is."""
    window = executed_TD[start : start + horizon]
    still = np.zeros((horizon - len(window), executed_TD.shape[1]), np.float32)
    still[:, -1] = window[-1, -1]
    return np.concatenate([window, still])


def _check(policy: FlowPolicy, episode: Episode) -> None:
    if difference := policy.contract.difference(episode.info.contract):
        raise ValueError(f"episode {episode.info.id} was logged under a different contract: {difference[0]}")
