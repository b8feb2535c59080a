"""Compares recorded numbers with the contract's limits: another unit or order of entries raises no error elsewhere.

Shape letters: F frames of an episode, V entries of the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract
from pirl_server.interchange.checkpoints.units_check import check_units, unusual_entries
from pirl_server.policy.processing_spec import Normalisation

FIX = "convert the data, choose the entries with --rename, or correct the contract"
LOW, HIGH = 0.01, 0.99


class Ranges:
    """Collects the numbers of all episodes; quantiles are taken of these, not of what a dataset says they are."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._parts: dict[str, list[NDArray[np.float32]]] = {"state": [], "action": []}

    def add(self, kind: str, values: NDArray[np.float32], where: str) -> None:
        """Take in one episode's [F, V], in the contract's order. Raises ValueError for one that is not finite."""
        fields = self._contract.state if kind == "state" else self._contract.action
        if not np.isfinite(values).all():
            row, entry = np.argwhere(~np.isfinite(values))[0].tolist()
            raise ValueError(
                f"{where}: {kind} '{fields[entry].name}' of frame {row} is {values[row, entry]}: remove the episode"
            )
        self._parts[kind].append(values)

    def check(self) -> Sequence[str]:
        """Raise ValueError for an entry that can't be in its unit; return a line for each that is worth a look."""
        state, action = (self._quantiles(kind) for kind in ("state", "action"))
        check_units(self._contract, state, action, (), FIX)
        return [f"check     {line}" for line in unusual_entries(self._contract, state, action, ())]

    def _quantiles(self, kind: str) -> Normalisation:
        values = np.concatenate(self._parts[kind])
        low, high = np.quantile(values.astype(np.float64), (LOW, HIGH), axis=0)
        return _normalisation(low, high)


def _normalisation(low: NDArray[Any], high: NDArray[Any]) -> Normalisation:
    return Normalisation("quantile", "openpi", tuple(low.tolist()), tuple(high.tolist()))
