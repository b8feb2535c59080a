"""An episode step by step, as every figure needs it: what was asked for, what was seen, how old it was, who drove.

Shape letters: T steps, D action, C calls, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Alteration, ControlSource
from pirl_server.episodes.schema import Episode


@dataclass(frozen=True)
class Timeline:
    """Columns of T steps."""

    commanded: NDArray[np.float32]
    """[T, D] the action of the chunk that was played; NaN where none was"""
    seen: NDArray[np.int64]
    """[T] the call whose images were the newest at the step; that of the chunk where the clock is not known"""
    begins: NDArray[np.bool_]
    """[T] whether the step is the first of another chunk than the step before it"""
    age_ms: NDArray[np.float64]
    """[T] from the observation behind the action to the state after it; NaN where unknown"""
    runs: tuple[tuple[ControlSource, int, int], ...]
    """who drove, from which step to which; the last one is not included"""

    @property
    def takeovers(self) -> tuple[tuple[int, int], ...]:
        """Steps that a person drove, as (first, after the last)."""
        return tuple((first, after) for source, first, after in self.runs if source == ControlSource.HUMAN)


def timeline(episode: Episode) -> Timeline:
    """Derive the columns. Raises ValueError for an episode without a step."""
    calls, steps = episode.calls, episode.steps
    if not len(steps.call):
        raise ValueError(f"episode {episode.info.id} has no step: nothing to draw")
    played = steps.call >= 0
    commanded = np.full(steps.executed.shape, np.nan, np.float32)
    chunk = np.asarray(calls.chunk)
    commanded[played] = chunk[steps.call[played], steps.index[played]]
    captured = np.asarray(calls.capture_time_ns)
    seen = newest_calls(steps.call, captured, steps.time_ns)
    age = np.full(len(steps.call), np.nan)
    if _has_clock(captured, steps.time_ns):
        age[played] = (steps.time_ns[played] - captured[steps.call[played]]) / 1e6
    before = np.concatenate([[-1], steps.call[:-1]])
    return Timeline(commanded, seen, played & (steps.call != before), age, runs(steps.source))


def newest_calls(
    call_T: NDArray[np.int32], captured_C: NDArray[np.int64], time_T: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the call whose images were the newest at each step, [T]; that of the chunk where there is no clock."""
    if not _has_clock(captured_C, time_T):
        return np.maximum.accumulate(np.maximum(call_T, 0)).astype(np.int64)
    return np.maximum(np.searchsorted(captured_C, time_T, side="right") - 1, 0).astype(np.int64)


def alteration_table(episode: Episode) -> dict[str, NDArray[np.bool_]]:
    """Return for each kind of alteration that occurs whether it did at each step, [T]."""
    bits = episode.steps.alterations
    kinds = {str(kind.name).lower(): (bits & np.uint32(kind)) != 0 for kind in Alteration if kind}
    return {name: there for name, there in kinds.items() if there.any()}


def chunk_starts(episode: Episode) -> NDArray[np.int64]:
    """Return the step at which each call's action 0 stands, [C]; -1 for a chunk that no step played.

    Of a chunk that was entered late that is before the first step that played it.
    """
    calls, steps = episode.calls, episode.steps
    first = calls.step.astype(np.int64)
    return np.where(first < 0, -1, first - steps.index[np.maximum(first, 0)])


def _has_clock(captured_C: NDArray[np.int64], time_T: NDArray[np.int64]) -> bool:
    return bool(len(captured_C)) and bool((captured_C > 0).all() and (time_T > 0).all())


def runs(source_T: NDArray[np.uint8]) -> tuple[tuple[ControlSource, int, int], ...]:
    """Return who drove, from which step to which, not included."""
    edges = [0, *(np.flatnonzero(np.diff(source_T)) + 1).tolist(), len(source_T)]
    return tuple((ControlSource(int(source_T[first])), first, after) for first, after in pairwise(edges))
