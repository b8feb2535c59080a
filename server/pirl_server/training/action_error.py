"""How far a policy's chunks, drawn as the server draws them, are from what was executed in good episodes.

Good is what a human drove, and what the policy did up to its own success. The unit is that of the policy's own
action space: 1 is `action_scale` for a tabletop policy, one standard deviation or half the range of the training data
for an imported one. A chunk is drawn at random, so the error of a perfect policy is not 0 but that of two draws: only
the comparison of two policies on the same windows and noise says something.

Shape letters: M windows, H horizon, D the contract's actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract import ControlSource, Observation
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import BATCH_SIZES, PolicyRequest
from pirl_server.training.episode_cut import cut

MOST_WINDOWS = 16
"""of one episode, evenly spaced"""
UNIT = "normalised action, root mean square"


@dataclass(frozen=True)
class Windows:
    """Where one episode is compared."""

    id: str
    """of the episode"""
    seen: tuple[Observation, ...]
    state: NDArray[np.float32]
    """[M, S]"""
    executed: NDArray[np.float32]
    """[M, H, D] in the contract's units"""
    valid: NDArray[np.bool_]
    """[M, H]: what was executed, by whom drove first, among the actions that are played of a chunk"""


def good_windows(policy: FlowPolicy, episodes: Sequence[Episode]) -> list[Windows]:
    """Windows of the episodes that have any: those of a human, and of the policy where it succeeded by itself."""
    found = [_windows(policy, each) for each in episodes]
    return [each for each in found if len(each.state)]


def action_errors(policy: FlowPolicy, windows: Sequence[Windows], scale_of: FlowPolicy) -> list[float]:
    """Root mean square distance [episodes] from what was executed, in the action space of `scale_of`.

    The noise is a function of episode and window, so that two policies draw from the same. Not finite where a chunk is
    not. Raises ValueError for an observation that the policy can't read.
    """
    return [_error(policy, each, number, scale_of) for number, each in enumerate(windows)]


def _error(policy: FlowPolicy, windows: Windows, number: int, scale_of: FlowPolicy) -> float:
    seeds = range(MOST_WINDOWS * number, MOST_WINDOWS * number + len(windows.seen))
    requests = [PolicyRequest(seen, False, seed) for seen, seed in zip(windows.seen, seeds)]
    most = BATCH_SIZES[-1]
    drawn = []
    for first in range(0, len(requests), most):
        for sample in policy.sample_batch(requests[first : first + most]):
            if isinstance(sample, ValueError):
                raise sample
            drawn.append(sample.actions)
    drawn_MHD, fields = np.stack(drawn), policy.contract.action
    if not np.isfinite(drawn_MHD).all():
        return float("inf")  # clipped, it would look like an action
    low = np.array([-np.inf if field.low is None else field.low for field in fields])
    high = np.array([np.inf if field.high is None else field.high for field in fields])
    played_MHD = np.clip(drawn_MHD, low, high).astype(np.float32)  # as the robot does
    drawn_MHA, executed_MHA = (scale_of.to_model(each, windows.state) for each in (played_MHD, windows.executed))
    apart_MHD = (drawn_MHA - executed_MHA)[..., : len(fields)].numpy()
    return float(np.sqrt(np.mean(apart_MHD[windows.valid] ** 2)))


def _windows(policy: FlowPolicy, episode: Episode) -> Windows:
    sees = policy.card.model.vision is not None
    part = cut(episode, policy.horizon, sees)
    valid_MH = part.valid & (np.arange(policy.horizon) < policy.execute_horizon)
    good = (part.rows["source"] == int(ControlSource.HUMAN)) | (part.rows["outcome"] == 1.0)
    rows = np.flatnonzero(good & valid_MH.any(axis=1))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_WINDOWS).round().astype(np.int64))] if len(rows) else rows
    cameras = [camera.name for camera in policy.contract.cameras] if sees else []
    seen = tuple(
        Observation(
            {name: episode.calls.images[name][part.rows["call"][row]] for name in cameras},
            part.state[row],
            episode.info.instruction,
        )
        for row in rows.tolist()
    )
    return Windows(episode.info.id, seen, part.state[rows], part.actions[rows], valid_MH[rows])
