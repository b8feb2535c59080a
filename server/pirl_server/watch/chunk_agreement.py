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
    """Sums over requests and steps, of the actions and of their ways within a chunk. Not thread-safe.

    `usual_D` is the spread of the old version's actions while it served, per dimension; None: not known.
    """

    def __init__(self, actions: int, usual_D: NDArray[np.float64] | None = None) -> None:
        self._usual_D = usual_D
        self._actions, self._ways = _Sums(actions), _Sums(actions)

    def add(self, new_HD: NDArray[np.float32], old_HD: NDArray[np.float32]) -> None:
        """Take in one request. Values that are not finite are left out: they are a sign of their own."""
        new, old = new_HD.astype(np.float64), old_HD.astype(np.float64)
        if np.isfinite(new).all() and np.isfinite(old).all():
            self._actions.add(new, old)
            self._ways.add(new - new.mean(axis=0), old - old.mean(axis=0))

    def result(self) -> Agreement:
        """Return what all requests so far say."""
        return self._actions.result(self._usual_D)

    def ways(self) -> Agreement:
        """Return the same of what the chunks do from their own mean on: where they go, wherever they are."""
        usual_D = self._actions.old_spread() if self._usual_D is None else self._usual_D
        return self._ways.result(usual_D)


class _Sums:
    def __init__(self, actions: int) -> None:
        self._count, self._compared = 0, 0
        self._sums_D = np.zeros((5, actions))
        """of new, old, new squared, old squared, new times old"""

    def add(self, new_HD: NDArray[np.float64], old_HD: NDArray[np.float64]) -> None:
        products = (new_HD, old_HD, new_HD**2, old_HD**2, new_HD * old_HD)
        self._sums_D += np.stack([each.sum(axis=0) for each in products])
        self._count += len(new_HD)
        self._compared += 1

    def old_spread(self) -> NDArray[np.float64]:
        """[D] of the old chunks."""
        _, old_D, _, olds_D, _ = self._sums_D / max(1, self._count)
        spread_D: NDArray[np.float64] = np.sqrt(np.maximum(olds_D - old_D**2, 0.0))
        return spread_D

    def result(self, usual_D: NDArray[np.float64] | None) -> Agreement:
        if not self._compared:
            return Agreement()
        new_D, old_D, news_D, _, both_D = self._sums_D / self._count
        new_sd_D, old_sd_D = np.sqrt(np.maximum(news_D - new_D**2, 0.0)), self.old_spread()
        usual_D = old_sd_D if usual_D is None else usual_D
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
