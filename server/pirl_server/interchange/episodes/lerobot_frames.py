"""Frames of an episode: each executed step with the newest observation that was made before it.

Images are there at policy calls alone. A frame in between holds those of the last observation before it, which is what
a policy would have had to act on; `own` says which frames have images of their own. Training here pairs images with
steps at observations only (`training.episode_cut`), at the same ones. The state is recorded after every step, so each
frame has the newest.

Shape letters: F frames, T steps, C calls, S state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_server.episodes.schema import Episode


@dataclass(frozen=True)
class Frames:
    """One episode's frames, in time order."""

    first: int
    """step of the first frame: earlier ones have no observation before them"""
    call: NDArray[np.int64]
    """[F] the call whose images it shows; -1 where there is none, of a robot without cameras"""
    own: NDArray[np.bool_]
    """[F] that observation was made for this very step"""
    state: NDArray[np.float32]
    """[F, S] before the step"""

    def __len__(self) -> int:
        return len(self.call)

    @property
    def frame_of_call(self) -> dict[int, int]:
        """Call -> the frame that was its own."""
        return {int(self.call[frame]): int(frame) for frame in np.flatnonzero(self.own)}


def frames(episode: Episode) -> Frames:
    """Pair an episode's steps with its observations."""
    calls, steps = episode.calls, episode.steps
    if not len(steps.reward):
        return Frames(0, np.empty(0, np.int64), np.empty(0, np.bool_), steps.state)
    start = _starts(episode)
    known = sorted(start, key=lambda call: (start[call], call))
    newest = np.full(len(steps.reward), -1, np.int64)
    own = np.zeros(len(newest), np.bool_)
    for call in known:
        newest[max(0, start[call]) :] = call
        own[max(0, start[call]) :] = False
        if start[call] >= 0:
            own[start[call]] = True
    seen = newest >= 0
    has_images = bool(episode.info.contract.cameras)
    first = int(np.argmax(seen)) if seen.any() else len(newest)
    if not has_images:
        first = min(first, 1)
    before = np.concatenate([steps.state[:1], steps.state[:-1]])
    with_own = own.copy()
    with_own[0] = bool(seen[0])  # before the first step no state is recorded but an observation's
    state = np.where(with_own[:, None], calls.state[newest], before) if len(calls.state) else before
    return Frames(first, newest[first:], own[first:], state[first:])


def _starts(episode: Episode) -> dict[int, int]:
    """Call -> the step before which its observation was made; below 0: before the first recorded one.

    Played by time, a chunk is entered further on: its first actions passed while the policy computed. Calls that were
    not played, as while a human drives, are placed by time; without times it is not known where they belong.
    """
    calls, steps = episode.calls, episode.steps
    played = np.flatnonzero(calls.step >= 0)
    entered = calls.step[played]
    found = dict(zip(played.tolist(), (entered - steps.index[entered]).tolist()))
    if len(steps.time_ns) and (np.diff(steps.time_ns) > 0).all() and steps.time_ns[0] > 0:
        others = np.flatnonzero(calls.step < 0)
        before = np.searchsorted(steps.time_ns, calls.capture_time_ns[others], side="right")
        inside = before < len(steps.time_ns)
        found |= dict(zip(others[inside].tolist(), before[inside].tolist()))
    return found
