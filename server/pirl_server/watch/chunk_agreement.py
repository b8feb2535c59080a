"""Accumulates how chunks of two versions, drawn for the same requests with the same noise, agree.

Shape letters: H horizon, D action dim.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pirl_server.watch.signs import Agreement

SMALL = 0.1
"""of the spread while the version served: below it a dimension does not move"""
TINY = 1e-6


class ChunkAgreement:
    """Sums over requests and steps. Not thread-safe.

    `usual_D` is the spread of the old version's actions while it served, per dimension; None: not known.
    """

    def __init__(self, actions: int, usual_D: NDArray[np.float64] | None = None) -> None:
        self._usual_D = usual_D
        self._count, self._compared = 0, 0
        self._sums_D = np.zeros((5, actions))
        """of new, old, new squared, old squared, new times old"""

    def add(self, new_HD: NDArray[np.float32], old_HD: NDArray[np.float32]) -> None:
        """Take in one request. Values that are not finite are left out: they are a sign of their own."""
        new, old = new_HD.astype(np.float64), old_HD.astype(np.float64)
        if not (np.isfinite(new).all() and np.isfinite(old).all()):
            return
        self._sums_D += np.stack([each.sum(axis=0) for each in (new, old, new**2, old**2, new * old)])
        self._count += len(new)
        self._compared += 1

    def result(self) -> Agreement:
        """Return what all requests so far say."""
        if not self._compared:
            return Agreement()
        new_D, old_D, news_D, olds_D, both_D = self._sums_D / self._count
        new_sd_D = np.sqrt(np.maximum(news_D - new_D**2, 0.0))
        old_sd_D = np.sqrt(np.maximum(olds_D - old_D**2, 0.0))
        usual_D = old_sd_D if self._usual_D is None else self._usual_D
        floor_D = np.maximum(SMALL * usual_D, TINY)
        moved_D = old_sd_D > floor_D
        if not moved_D.any():
            return Agreement(self._compared)
        scale_D = np.maximum(old_sd_D, floor_D)
        correlation_D = (both_D - new_D * old_D) / np.maximum(new_sd_D * old_sd_D, TINY**2)
        both_move_D = moved_D & (new_sd_D > floor_D)
        return Agreement(
            compared=self._compared,
            correlation=float(np.where(both_move_D, correlation_D, 0.0)[moved_D].mean()),
            least_correlation=float(correlation_D[both_move_D].min(initial=1.0)),
            spread=float(np.sqrt(((new_sd_D / scale_D)[moved_D] ** 2).mean())),
            largest_shift=float((np.abs(new_D - old_D) / scale_D)[moved_D].max()),
            moves=bool(moved_D.sum() >= max(1, (usual_D > TINY).sum() // 2)),
        )
