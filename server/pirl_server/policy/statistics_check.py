"""Checks from the first observations whether the card's statistics match the connected robot.

Wrong statistics (another robot's, degrees for radians, another order of joints) raise no error anywhere: they make the
network extrapolate, and the arm does something. A state far outside of what the data set held is said at once.

Shape letters: S state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pirl_server.policy.normalisation import Normaliser
from pirl_server.policy.processing_spec import Normalisation

FAR = 5.0
"""in model range: five standard deviations, or two whole ranges beyond q01 or q99"""


class FirstObservations:
    """Compares the first `count` states with the statistics; each dimension is complained about once."""

    def __init__(self, statistics: Normalisation, names: Sequence[str], count: int = 50) -> None:
        self._statistics, self._normaliser, self._names = statistics, Normaliser(statistics), tuple(names)
        self._left = 0 if statistics.scheme == "none" else count
        self._count, self._odd = count, set[int]()

    @property
    def odd(self) -> bool:
        """Whether any state was far from the data so far."""
        return bool(self._odd)

    def add(self, state_S: NDArray[np.floating]) -> list[str]:
        """Lines for the log: one per dimension that is odd for the first time, and a verdict after the last state."""
        if self._left == 0:
            return []
        self._left -= 1
        inside_S = np.abs(self._normaliser.apply(state_S)) <= FAR  # false for NaN too
        new = [int(index) for index in np.flatnonzero(~inside_S) if index not in self._odd]
        self._odd.update(new)
        lines = [self._line(index, float(state_S[index])) for index in new]
        return lines if self._left else [*lines, self._verdict()]

    def _line(self, index: int, value: float) -> str:
        first, second = self._statistics.first[index], self._statistics.second[index]
        usual = f"mean {first:g}, std {second:g}"
        if self._statistics.scheme == "quantile":
            usual = f"q01 {first:g}, q99 {second:g}"
        name = self._names[index]
        return f"state '{name}' is {value:g}, far from the policy's data ({usual}): wrong unit, order or robot?"

    def _verdict(self) -> str:
        if not self._odd:
            return f"statistics match: {self._count} observations are within the range of the policy's data"
        odd = ", ".join(self._names[index] for index in sorted(self._odd))
        return f"statistics do not match: some of {self._count} observations are far from the policy's data in {odd}"
