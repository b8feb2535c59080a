"""One logged episode cut into windows: where an observation is, what was executed from there, what it led to.

A window of the policy's is one of its decisions: the observation of a call, and of the actions that followed those of
that call's chunk. A window that began within a chunk, or ran on into the next, would hold actions of two independent
draws; a policy that learns such windows learns to change its mind in the middle of a chunk. A person decides at every
step, so each of theirs begins a window.

Shape letters: M windows, T steps of an episode, C its calls, H horizon, D action, S state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, ControlSource
from pirl_server.episodes.schema import Episode, Steps
from pirl_server.episodes.step_masks import targets
from pirl_server.policy.processor import Array
from pirl_server.training.episode_targets import credit, takeovers


@dataclass(frozen=True)
class Part:
    """Windows of one episode."""

    state: Array
    """[M, S]"""
    actions: Array
    """[M, H, D]"""
    valid: NDArray[np.bool_]
    """[M, H]"""
    rows: Mapping[str, NDArray[Any]]
    """columns [M] of `episode_dataset.EpisodeWindows`, numbers within the episode"""


def cut(episode: Episode, horizon: int, sees: bool) -> Part:
    """Windows of an episode: at the policy's decisions and a person's steps, with `sees` at those with images only."""
    steps, target_T = episode.steps, targets(episode.steps)
    call_of, asked = _observed(episode, sees), _chunk(steps)
    alone = np.flatnonzero((asked < 0) & target_T & (np.arange(len(asked)) > 0))
    starts = sorted(call_of) if sees else sorted({*call_of, *alone.tolist()})
    start = np.array(starts, np.int64)
    call = np.array([call_of.get(each, -1) for each in starts], np.int64)
    first = np.where((call >= 0) & (episode.calls.step[call] >= 0), episode.calls.step[call], start)
    rows_MH = start[:, None] + np.arange(horizon)
    recorded_MH = (rows_MH >= 0) & (rows_MH < len(target_T))
    rows_MH = rows_MH.clip(0, len(target_T) - 1)
    same_MH = (steps.source[rows_MH] == steps.source[first][:, None]) & (asked[rows_MH] == asked[first][:, None])
    valid = recorded_MH & target_T[rows_MH] & same_MH
    kept = valid.any(axis=1)
    start, call, first = start[kept], call[kept], first[kept]
    state = np.where((call >= 0)[:, None], episode.calls.state[call], steps.state[start - 1])
    return Part(state, _actions(episode, rows_MH[kept], state), valid[kept], _columns(episode, start, first, call))


def _chunk(steps: Steps) -> NDArray[np.int64]:
    """Whose chunk each step [T] is of: a call, or -1 where a person drove or no call is known."""
    return np.where(steps.source == int(ControlSource.POLICY), steps.call, -1).astype(np.int64)


def _observed(episode: Episode, sees: bool) -> dict[int, int]:
    """Step before which an observation was made -> its call.

    Played by time, a chunk is entered further on: its first actions were executed while the policy computed.
    """
    calls, steps = episode.calls, episode.steps
    played = np.flatnonzero(calls.step >= 0)
    entered = calls.step[played]
    found = dict(zip((entered - steps.index[entered]).tolist(), played.tolist()))
    human = steps.source == int(ControlSource.HUMAN)
    if sees and human.any() and (np.diff(steps.time_ns) > 0).all():
        others = np.flatnonzero(calls.step < 0)
        before = np.searchsorted(steps.time_ns, calls.capture_time_ns[others], side="right")
        known = (before > 0) & (before < len(human)) & human[before.clip(max=len(human) - 1)]
        found |= dict(zip(before[known].tolist(), others[known].tolist()))
    return found


def _actions(episode: Episode, rows_MH: NDArray[np.int64], state_MS: Array) -> Array:
    """[M, H, D] what was executed, beyond the end the last of it.

    Deltas that count from their chunk's observation are counted from the window's instead.
    """
    calls, steps = episode.calls, episode.steps
    executed_TD = np.where(np.isfinite(steps.executed), steps.executed, np.float32(0.0))
    actions_MHD: Array = executed_TD[rows_MH]
    action, position = chunk_deltas(episode.info.contract)
    if len(action):
        before_TS = np.concatenate([calls.state[:1], steps.state[:-1]])
        policys_T = (steps.call >= 0) & (steps.source == int(ControlSource.POLICY))
        origin_TS = np.where(policys_T[:, None], calls.state[steps.call], before_TS)
        actions_MHD[..., action] += origin_TS[rows_MH][..., position] - state_MS[:, None, position]
    return actions_MHD


def chunk_deltas(contract: Contract) -> tuple[list[int], list[int]]:
    """Return which actions count from the state of the chunk's observation, and which entries of the state those are.

    These are `NAME.delta` of a joint whose state is `NAME.position`. Raises ValueError for poses that count from there:
    no entry of the state says where the tool was.
    """
    if poses := [field.name for field in contract.action if field.name.endswith(".from_observation")]:
        raise ValueError(
            f"action '{poses[0]}' counts from the tool at the observation of its chunk: windows of such episodes cannot"
            " be cut; train on actions that count from the command or the measured arm"
        )
    states = {field.name: number for number, field in enumerate(contract.state)}
    pairs = [
        (number, states[position])
        for number, field in enumerate(contract.action)
        if field.name.endswith(".delta") and (position := field.name.removesuffix(".delta") + ".position") in states
    ]
    return [action for action, _ in pairs], [position for _, position in pairs]


def _columns(
    episode: Episode, start: NDArray[np.int64], first: NDArray[np.int64], call: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Columns of windows that begin at `start`, and whose own driver drives from `first` on."""
    info, steps, taken = episode.info, episode.steps, takeovers(episode)
    credits = [credit(episode, int(step), taken) for step in first]
    end = np.array([each.end for each in credits], np.int64)
    outcome = np.array([each.outcome for each in credits], np.float32)
    close = np.array([each.before_takeover for each in credits], np.bool_)
    policys = (steps.source[first] == int(ControlSource.POLICY)) & (call >= 0)
    played = episode.calls.policy_version[call]
    return {
        "start": start,
        "call": call,
        "source": steps.source[first].astype(np.int64),
        "outcome": outcome,
        "before_takeover": close,
        "bootstrap": _bootstrap(end, np.isnan(outcome), close),
        "steps_left": end - start,
        "seconds_left": ((end - first) / info.contract.rate_hz).astype(np.float32),
        "decisions_left": (end - 1 - first) // info.execute_horizon,
        "elapsed": first.astype(np.float32),
        "version": np.where(policys, played, -1).astype(np.int64),
    }


def _bootstrap(end: NDArray[np.int64], open_: NDArray[np.bool_], close: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number [M] of the window that continues each open one: the first failure before the same takeover, else the last.

    The last window of a part without a known outcome continues with itself.
    """
    found = np.full(len(end), -1, np.int64)
    for each in np.unique(end[open_]):
        mine = end == each
        after = np.flatnonzero(mine & close)
        found[mine & open_] = after[0] if len(after) else np.flatnonzero(mine & open_)[-1]
    return found
