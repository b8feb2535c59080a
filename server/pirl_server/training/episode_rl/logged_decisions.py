"""Exploring episodes as PPO decisions: which of them have a density that an update may learn from, and why others not.

An episode's decisions are all kept for the critic, in time order. The policy's loss takes those whose executed actions
are the sampled ones: played whole by the policy, unaltered but for the clip that the training environment has too.

Shape letters: M decisions of all episodes, H horizon, D the contract's actions, A the model's, C calls, T steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from pirl_contract import Alteration, Contract, ControlSource
from pirl_server.algorithm.density import sum_executed
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset, make_windows, stack_images

TOLERANCE = 1e-3
"""of the action's range: what the clip may leave between sampled and executed"""
Reasons = Counter[str]
"""why decisions were left out of the policy's loss, and how many"""


@dataclass(frozen=True, kw_only=True)
class LoggedDecisions(ChunkDataset):
    """One row per played decision, in time order within each episode; `actions` are the sampled ones."""

    latents: Tensor
    """[M, 2, H, A] before and after the stochastic denoise step"""
    index: Tensor
    """[M] int64: which of the K steps that was; 0 where there was none"""
    noise_level: Tensor
    """[M]"""
    executed: Tensor
    """[M] int64: actions of the chunk that were played"""
    stored_log_prob: Tensor
    """[M] of the played entries, as the server logged it"""
    version: Tensor
    """[M] int64: position in `versions`"""
    versions: tuple[str, ...]
    acted: Tensor
    """[M] bool: the policy's loss may learn from it"""
    task: Tensor
    """[M] int64: number of the instruction"""
    episode: Tensor
    """[M] int64: number of the episode"""
    elapsed: Tensor
    """[M] steps before it, over the longest episode's"""
    reward: Tensor
    """[M] 1 in the last decision of a success, else 0"""
    last: Tensor
    """[M] bool: nothing followed it, or a person took over"""
    cut: Tensor
    """[M] bool, of the last ones: the episode was stopped without a label, so its value is not 0 after it"""


def logged_decisions(policy: FlowPolicy, episodes: Sequence[Episode]) -> tuple[LoggedDecisions, Reasons]:
    """Read episodes that have at least one played decision each; say why decisions are not for the policy's loss.

    Raises ValueError when not one is.
    """
    why = Reasons()
    rows = [_read(policy, number, episode, why) for number, episode in enumerate(episodes)]
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    if not columns["acted"].any():
        raise ValueError(f"no decision has a density that PPO can learn from: {listed(why)}; log with --explore")
    said = [episode.info.instruction for episode, row in zip(episodes, rows) for _ in row["call"]]
    images = [
        {name: view[row["call"]] for name, view in episode.calls.images.items()} for episode, row in zip(episodes, rows)
    ]
    windows = make_windows(policy, columns["state"], said, columns["chunk"], stack_images(policy, images))
    tasks, versions = list(dict.fromkeys(said)), _versions(episodes)
    named = [(episode.info.policy_versions[v]) for episode, row in zip(episodes, rows) for v in row["version"]]
    tensors = {name: torch.from_numpy(columns[name]) for name in COLUMNS}
    steps = tensors.pop("elapsed")
    parts = {field.name: getattr(windows, field.name) for field in fields(windows)}
    return LoggedDecisions(
        **parts,
        **tensors,
        elapsed=steps / steps.max().clamp(min=1.0),
        task=torch.tensor([tasks.index(each) for each in said]),
        version=torch.tensor([versions.index(each) for each in named]),
        versions=versions,
    ), why


COLUMNS = (
    "latents", "index", "noise_level", "executed", "stored_log_prob", "acted", "episode", "elapsed", "reward", "last",
    "cut",
)  # fmt: skip


def listed(why: Reasons) -> str:
    """Reasons by their number, the most frequent first."""
    return "; ".join(f"{count} {reason}" for reason, count in why.most_common())


def _versions(episodes: Iterable[Episode]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(version for episode in episodes for version in episode.info.policy_versions))


def _read(policy: FlowPolicy, number: int, episode: Episode, why: Reasons) -> dict[str, np.ndarray]:
    """One episode's columns, a row per played call."""
    calls, played = episode.calls, np.flatnonzero(episode.calls.step >= 0)
    played = played[np.argsort(calls.step[played], kind="stable")]
    faults = [_fault(policy, episode, call) for call in played]
    why.update(fault for fault in faults if fault)
    index = np.maximum(calls.sde_index[played], 0).astype(np.int64)
    executed = np.array([max(1, int((episode.steps.call == call).sum())) for call in played], np.int64)
    executed = np.minimum(executed, policy.horizon)
    density = sum_executed(
        torch.from_numpy(calls.log_prob[played]), torch.from_numpy(executed), policy.contract.action_dim
    )
    last, reward, cut = _ends(episode, played)
    return {
        "call": played,
        "state": calls.state[played],
        "chunk": calls.chunk[played],
        "latents": np.stack([calls.chain[played, index], calls.chain[played, index + 1]], axis=1),
        "index": index,
        "noise_level": calls.noise_level[played],
        "executed": executed,
        "stored_log_prob": density.numpy(),
        "version": calls.policy_version[played],
        "acted": np.array([not fault for fault in faults]),
        "episode": np.full(len(played), number),
        "elapsed": calls.step[played].astype(np.float32),
        "reward": reward,
        "last": last,
        "cut": cut,
    }


def _ends(episode: Episode, played: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where stretches of decisions end [C] bool, their rewards [C], and which of the ends were cuts [C] bool.

    A takeover ends a stretch without a reward: the policy needed help there, however well the person did. The label
    is of the last stretch; where there is none, the operator, a fault or the clock cut it.
    """
    human = np.cumsum(episode.steps.source == ControlSource.HUMAN)
    before = human[episode.calls.step[played]]
    last = np.append(before[1:] > before[:-1], True)
    reward, cut = np.zeros(len(played), np.float32), np.zeros(len(played), np.bool_)
    saved = human[-1] > before[-1]
    reward[-1] = float(bool(episode.info.success) and not saved)
    cut[-1] = episode.info.success is None and not saved
    return last, reward, cut


def _fault(policy: FlowPolicy, episode: Episode, call: int) -> str:
    """Why the policy's loss can't learn from this decision; empty when it can."""
    calls, steps = episode.calls, episode.steps
    mine = np.flatnonzero(steps.call == call)
    if calls.sde_index[call] < 0:
        return "were drawn deterministically and have no density"
    if calls.chain.shape[1] != policy.card.denoise_steps + 1:
        return f"were drawn in {calls.chain.shape[1] - 1} denoise steps, the base has {policy.card.denoise_steps}"
    if (steps.source[mine] != ControlSource.POLICY).any():
        return "were driven by a person or a hold"
    if (steps.alterations[mine] & ~np.uint32(Alteration.CLIPPED)).any():
        return "were altered before execution"
    whole = np.array_equal(steps.index[mine], np.arange(len(mine)))
    over = len(steps.call) - 1 in mine
    if not whole or len(mine) > policy.horizon or (len(mine) < episode.info.execute_horizon and not over):
        return "were not played whole"
    if not _same(policy.contract, calls.chunk[call, : len(mine)], steps.executed[mine]):
        return "executed other actions than the sampled ones"
    return ""


def _same(contract: Contract, sampled_HD: np.ndarray, executed_HD: np.ndarray) -> bool:
    """Whether the executed actions are the sampled ones, clipped to the contract's range or not."""
    low = np.array([-np.inf if field.low is None else field.low for field in contract.action])
    high = np.array([np.inf if field.high is None else field.high for field in contract.action])
    room = TOLERANCE * np.where(np.isfinite(high - low), high - low, 1.0)
    apart = np.minimum(np.abs(executed_HD - sampled_HD), np.abs(executed_HD - np.clip(sampled_HD, low, high)))
    return bool((apart <= room).all())
