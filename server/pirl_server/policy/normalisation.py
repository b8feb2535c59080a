"""Physical units to model range and back by data statistics. Never clipped, like openpi and lerobot.

Computed in float64; who puts the numbers into a tensor rounds once.

Shape letters: D the real dimensions of state or action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pirl_server.policy.processing_spec import Normalisation

Double = NDArray[np.float64]

SMALLEST_STD, SMALLEST_RANGE = 1e-5, 1e-4
"""below these a dimension hardly moved in the data, and the least motion on the robot becomes a huge input"""
OPENPI_EPSILON, LEROBOT_EPSILON = 1e-6, 1e-8


class Normaliser:
    """x -> (x - offset) / scale of the last axis, with the epsilon used in training."""

    def __init__(self, statistics: Normalisation) -> None:
        first, second = np.asarray(statistics.first, np.float64), np.asarray(statistics.second, np.float64)
        openpi = statistics.convention == "openpi"
        self._offset, self._scale, self._undo_scale = np.zeros(1), np.ones(1), np.ones(1)
        if statistics.scheme == "zscore":
            self._offset, self._scale = first, second + (OPENPI_EPSILON if openpi else LEROBOT_EPSILON)
            # lerobot leaves its epsilon out on the way back
            self._undo_scale = self._scale if openpi else second
        elif statistics.scheme == "quantile":
            width = second - first
            width = width + OPENPI_EPSILON if openpi else np.where(width == 0, LEROBOT_EPSILON, width)
            # 2 (x - q01) / width - 1: the middle of the range goes to 0
            self._offset, self._scale = first + width / 2, width / 2
            self._undo_scale = self._scale

    def apply(self, x: NDArray[np.floating]) -> Double:
        """Units -> model range, last axis being the real dimensions. Any shape otherwise; float64."""
        return (np.asarray(x, np.float64) - self._offset) / self._scale

    def undo(self, x: NDArray[np.floating]) -> Double:
        """Model range -> units. The shape stays the same, [..., D]."""
        return np.asarray(x, np.float64) * self._undo_scale + self._offset


def check_statistics(statistics: Normalisation, names: Sequence[str], kind: str) -> None:
    """Raise ValueError, naming the dimension, for statistics that no robot can be run with.

    `names` are the contract's entries, `kind` says whose they are ("state" or "action").
    """
    if statistics.scheme == "none":
        if statistics.first or statistics.second:
            raise ValueError(f"{kind} statistics are given, but their scheme is 'none': remove them or set the scheme")
        return
    if not len(statistics.first) == len(statistics.second) == len(names):
        raise ValueError(
            f"{len(statistics.first)} and {len(statistics.second)} {kind} statistics for the contract's {len(names)}"
            f" {kind} entries: there must be one of each per entry"
        )
    for name, low, high in zip(names, statistics.first, statistics.second):
        _check_one(f"{kind} '{name}'", statistics.scheme, low, high)


def _check_one(what: str, scheme: str, first: float, second: float) -> None:
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError(f"{what} has statistics {first} and {second}, which must be finite")
    name, extent, least = ("std", second, SMALLEST_STD)
    if scheme == "quantile":
        name, extent, least = ("q99 - q01", second - first, SMALLEST_RANGE)
    if extent < least:
        raise ValueError(
            f"{what}: {name} is {extent:g}, below {least:g}: it hardly moved in the data, and a small motion would be"
            " a huge input; give statistics of data in which it moves"
        )
