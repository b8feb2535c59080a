"""The workspace box of the tool centre, and the floor of the arm. Metres, base frame. J = joints, N = points."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pirl_ros.control.floor import Floor
from pirl_ros.control.kinematics import Chain

Array = NDArray[np.float64]

_NUDGE = 1e-6
_NEAR_M = 0.02
"""distance from a wall within which a way that leads out is bent"""


class Workspace:
    """Knows where the tool centre is for given joints, whether it is inside the box, and the arm above the floor."""

    def __init__(self, low: Array, high: Array, chain: Chain, floor: float = -math.inf) -> None:
        """Take two opposite corners [3] and the floor's height. ValueError unless they are finite, low under high."""
        if low.shape != (3,) or high.shape != (3,) or not np.isfinite([low, high]).all() or not (low < high).all():
            raise ValueError("the governor needs a workspace: finite low and high corners with low < high on each axis")
        self.low, self.high = low, high
        self._origins, self._tool, self._slides = chain.origins, chain.tool[:3, 3], chain.slides
        # Plain numbers: for one point they are ten times as fast as arrays of three.
        rows = [tuple(map(float, origin[:3].ravel())) for origin in chain.origins]
        self._rows = list(zip(chain.slides.tolist(), rows))[::-1]
        lengths = [float(np.linalg.norm(origin[:3, 3])) for origin in chain.origins[1:]]
        lengths.append(float(np.linalg.norm(self._tool)))
        self._reach = np.cumsum(lengths[::-1])[::-1]
        self._known = (np.zeros(len(lengths)), -np.inf)
        self._floor = Floor(floor, chain) if floor > -math.inf else None

    def tool(self, joints: Array) -> tuple[float, float, float]:
        """Return the tool centre [3]. Joints [J] rad or m, result in metres."""
        x, y, z = map(float, self._tool)
        for at, (slides, row) in zip(reversed(joints.tolist()), self._rows):
            if slides:
                z += at
            else:
                c, s = math.cos(at), math.sin(at)
                x, y = c * x - s * y, s * x + c * y
            x, y, z = (
                row[0] * x + row[1] * y + row[2] * z + row[3],
                row[4] * x + row[5] * y + row[6] * z + row[7],
                row[8] * x + row[9] * y + row[10] * z + row[11],
            )
        return x, y, z

    def depth(self, joints: Array) -> float:
        """Return the distance of the tool centre from the nearest wall, or of the arm from the floor: below 0 outside.

        Joints [J] rad, result in metres.
        """
        depth = min(
            min(at - low, high - at) for at, low, high in zip(self.tool(joints), self.low.tolist(), self.high.tolist())
        )
        return depth if self._floor is None else min(depth, self._floor.clearance(joints))

    def holds(self, path: Array) -> bool:
        """Return whether the tool centre is inside, and the arm above the floor, at every point of a path [N, J]."""
        depth = self.depth(path[0])
        # No joint moves anything further than its angle times the length of what hangs on it, or than it slides.
        if depth >= float(np.abs(path[1:] - path[0]).max(axis=0, initial=0.0) @ self._reach_on(path)):
            self._known = (path[0], depth)
            return True
        if self._floor is not None and not self._floor.holds(path):
            return False
        points = self._tools(path)
        return bool(((points >= self.low) & (points <= self.high)).all())

    def before(self, start: Array, goal: Array) -> Array:
        """Return `goal`, or, when the tool would be outside there, a point on the way from `start` that is inside.

        All are joints [J] rad.
        """
        known, depth = self._known
        reach = self._reach_on(np.stack([known, goal])) if self._slides.any() else self._reach
        if depth >= float((np.abs(known - goal)) @ reach) or self.depth(goal) >= 0:
            return goal
        inside, outside = 0.0, 1.0
        for _ in range(8):
            middle = (inside + outside) / 2
            if self.depth(start + middle * (goal - start)) >= 0:
                inside = middle
            else:
                outside = middle
        return start + inside * (goal - start)

    def along(self, start: Array, goal: Array) -> Array:
        """Return where to go when the way to `goal` leaves the box: along the near walls, a little inwards.

        The joint way loses its part across the wall: d - n^T (n d + push) / (n n^T), n = derivative of the distance
        (gradient projection, Rosen 1960, for one wall at a time; the push grows to 0.2 of how near the wall is).
        All are joints [J] rad.
        """
        tool, way = np.array(self.tool(start)), goal - start
        jacobian = np.stack([np.subtract(self.tool(start + nudge), tool) for nudge in _NUDGE * np.eye(len(start))], 1)
        jacobian /= _NUDGE
        for side, distance in ((-1.0, tool - self.low), (1.0, self.high - tool)):
            for axis in np.flatnonzero(distance < _NEAR_M):
                across = side * jacobian[axis]
                outwards = float(across @ way) + 0.2 * (_NEAR_M - distance[axis])
                if outwards > 0:
                    way = way - across * outwards / max(float(across @ across), 1e-6)
        return start + way

    def _tools(self, path: Array) -> Array:
        """[N, 3]."""
        points = np.repeat(self._tool[None], len(path), axis=0)
        for at, slides, origin in zip(path.T[::-1], self._slides[::-1], self._origins[::-1]):
            x, y, z = points.T
            if slides:
                z = z + at
            else:
                c, s = np.cos(at), np.sin(at)
                x, y = c * x - s * y, s * x + c * y
            points = np.stack([x, y, z], axis=1) @ origin[:3, :3].T + origin[:3, 3]
        return points

    def _reach_on(self, path: Array) -> Array:
        """[J] how far the tool moves at most per joint's unit on a path [N, J]: m/rad, or 1 for a joint that slides."""
        if not self._slides.any():
            return self._reach
        longest = np.where(self._slides, np.abs(path).max(axis=0), 0.0)
        behind = longest[::-1].cumsum()[::-1] - longest
        return np.where(self._slides, 1.0, self._reach + behind)
