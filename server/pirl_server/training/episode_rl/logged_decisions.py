"""Exploring episodes as PPO decisions: which of them have a density that an update may learn from, and why others not.

An episode's decisions are all kept for the critic, in time order. The policy's loss takes those whose executed actions
are the sampled ones: played whole by the policy, unaltered but for the clip that the training environment has too.

Shape letters: M decisions of all episodes, H horizon, D the contract's actions, A the model's, C calls, T steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pirl_contract import Alteration, Contract, ControlSource
from pirl_server.algorithm.density import sum_executed
from pirl_server.episodes.schema import PIXELS_KEY, Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset, ImageRows, make_windows
from pirl_server.training.episode_targets import takeovers

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
    noise: Tensor
    """[M, H, A] where the chain started"""
    as_sampled: Tensor
    """[M] bool: its executed actions are the sampled ones"""
    acted: Tensor
    """[M] bool: and there is a density of them, so that PPO may learn from it"""
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


def logged_decisions(policy: FlowPolicy, episodes: Iterable[Episode]) -> tuple[LoggedDecisions, Reasons]:
    """Read the played decisions of episodes, once; say why some are not `acted`.

    Raises ValueError when there is none.
    """
    why, images = Reasons(), None
    rows, said, versions = list[dict[str, np.ndarray]](), list[str](), list[str]()
    for number, episode in enumerate(episodes):
        if not (episode.calls.step >= 0).any():
            continue
        row = _read(policy, number, episode, why)
        images = images or ImageRows(policy)
        images.add(episode.calls.images, row["call"])
        said += [episode.info.instruction] * len(row["call"])
        versions += [episode.info.policy_versions[each] for each in episode.calls.policy_version[row["call"]]]
        rows.append(row)
    if images is None:
        raise ValueError("in no episode was a chunk of the policy played")
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    windows = make_windows(policy, columns["state"], said, columns["chunk"], images.finish())
    parts: dict[str, Any] = {field.name: getattr(windows, field.name) for field in fields(windows)}
    tensors: dict[str, Any] = {name: torch.from_numpy(columns[name]) for name in COLUMNS}
    steps = tensors.pop("elapsed")
    return LoggedDecisions(
        **parts,
        **tensors,
        elapsed=steps / steps.max().clamp(min=1.0),
        task=_numbered(said)[0],
        version=_numbered(versions)[0],
        versions=_numbered(versions)[1],
    ), why


def _numbered(words: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Number [M] of each word among the distinct ones, and those."""
    number = {word: index for index, word in enumerate(dict.fromkeys(words))}
    return torch.tensor([number[word] for word in words]), tuple(number)


COLUMNS = (
    "latents", "index", "noise_level", "executed", "stored_log_prob", "noise", "as_sampled", "acted", "episode",
    "elapsed", "reward", "last", "cut",
)  # fmt: skip


def listed(why: Reasons) -> str:
    """Reasons by their number, the most frequent first."""
    return "; ".join(f"{count} {reason}" for reason, count in why.most_common())


def _read(policy: FlowPolicy, number: int, episode: Episode, why: Reasons) -> dict[str, np.ndarray]:
    """One episode's columns, a row per played call."""
    calls, played = episode.calls, np.flatnonzero(episode.calls.step >= 0)
    played = played[np.argsort(calls.step[played], kind="stable")]
    altered = np.array([_execution_fault(policy, episode, call) for call in played.tolist()])
    faults = [_density_fault(policy, episode, call) or fault for call, fault in zip(played.tolist(), altered.tolist())]
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
        "noise": calls.chain[played, 0],
        "as_sampled": altered == "",
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
    stretch = np.searchsorted(np.array(takeovers(episode)), episode.calls.step[played], side="right")
    last = np.append(stretch[1:] > stretch[:-1], True)
    saved = len(takeovers(episode)) > stretch[-1]
    reward, ends = np.zeros(len(played), np.float32), np.zeros(len(played), np.bool_)
    reward[-1] = float(bool(episode.info.success) and not saved)
    ends[-1] = episode.info.success is None and not saved
    return last, reward, ends


def _density_fault(policy: FlowPolicy, episode: Episode, call: int) -> str:
    """Why there is no density of this decision that PPO can use; empty when there is."""
    calls = episode.calls
    if calls.sde_index[call] < 0:
        return "were drawn deterministically and have no density"
    if PIXELS_KEY in episode.info.metadata and policy.card.model.vision is not None:
        return "have images that a video codec changed, so that what acted has no density that can be recomputed"
    if calls.chain.shape[1] != policy.card.denoise_steps + 1:
        return f"were drawn in {calls.chain.shape[1] - 1} denoise steps, the base has {policy.card.denoise_steps}"
    return ""


def _execution_fault(policy: FlowPolicy, episode: Episode, call: int) -> str:
    """Why what was executed is not what was sampled; empty when it is."""
    calls, steps = episode.calls, episode.steps
    mine = np.flatnonzero(steps.call == call)
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
