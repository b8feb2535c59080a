"""How low the arm reaches: the heights of its joint origins. Metres, base frame. J = joints, N = points of a path.

The arm is taken as straight lines from joint origin to joint origin and on to the tool centre. A line with both ends
above a plane is above it as a whole, so heights of the origins are enough. How thick the arm is, is not known here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pirl_ros.control.kinematics import Chain

Array = NDArray[np.float64]

_FIXED_M = 1e-9
"""an origin that moves by less than this does not move"""


class Floor:
    """Knows the lowest joint origin; those that no joint moves, as on the base, are left out."""

    def __init__(self, height: float, chain: Chain) -> None:
        """Take the height of the floor in metres."""
        self.height = height
        self._origins, self._slides = chain.origins, chain.slides.tolist()
        self._rows = [tuple(map(float, origin[:3].ravel())) for origin in chain.origins]
        poses = np.random.default_rng(0).uniform(0.1, 1.0, (4, len(chain.origins)))
        moved = np.ptp([chain.places(pose) for pose in poses], axis=0).max(axis=1) > _FIXED_M
        self._first = int(np.argmax(moved)) if moved.any() else len(moved)

    def clearance(self, joints: Array) -> float:
        """Return how far the lowest moving origin is above the floor, below 0 under it; joints [J] rad or m."""
        # The third row of the frame: the base's z axis in the joint's frame, and the height of its origin.
        a, b, c, height, lowest = 0.0, 0.0, 1.0, 0.0, math.inf
        for index, (at, slides, row) in enumerate(zip(joints.tolist(), self._slides, self._rows)):
            a, b, c, height = (
                a * row[0] + b * row[4] + c * row[8],
                a * row[1] + b * row[5] + c * row[9],
                a * row[2] + b * row[6] + c * row[10],
                a * row[3] + b * row[7] + c * row[11] + height,
            )
            if index >= self._first:
                lowest = min(lowest, height)
            if slides:
                height += c * at
            else:
                cosine, sine = math.cos(at), math.sin(at)
                a, b = cosine * a + sine * b, cosine * b - sine * a
        return lowest - self.height

    def holds(self, path: Array) -> bool:
        """Return whether every moving origin is above the floor at every point of a path [N, J]."""
        row = np.zeros((len(path), 4))
        row[:, 2], lowest = 1.0, math.inf
        for index, (at, slides, origin) in enumerate(zip(path.T, self._slides, self._origins)):
            row = row @ origin
            if index >= self._first:
                lowest = min(lowest, float(row[:, 3].min()))
            if slides:
                row[:, 3] += row[:, 2] * at
            else:
                a, b, cosine, sine = row[:, 0].copy(), row[:, 1].copy(), np.cos(at), np.sin(at)
                row[:, 0], row[:, 1] = cosine * a + sine * b, cosine * b - sine * a
        return lowest >= self.height
