"""The workspaces of several arms as one: inside is where every tool centre is inside its own box. J = joints of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.workspace import Workspace


class Walls(Protocol):
    """What the governor asks of a workspace. Joints rad, distances m."""

    def depth(self, joints: Array) -> float:
        """Return the distance to the nearest wall for joints [J]: below 0 outside."""

    def holds(self, path: Array) -> bool:
        """Return whether every point of a path [N, J] of N periods is inside."""

    def before(self, start: Array, goal: Array) -> Array:
        """Return `goal` itself, or a point on the way to it from `start` that is inside, all [J]."""

    def along(self, start: Array, goal: Array) -> Array:
        """Return where to go from `start` when the way to `goal` leads out, all [J]."""


class Workspaces:
    """Several boxes. An arm at a wall of its own is bent along it; the others keep their goal."""

    def __init__(self, boxes: Sequence[Workspace], joints: Sequence[slice]) -> None:
        """Take each arm's box, and which joints are its own."""
        self._boxes = list(zip(boxes, joints))

    def depth(self, joints: Array) -> float:
        """Return the least distance of a tool centre from a wall of its box. Joints [J]."""
        return min(box.depth(joints[own]) for box, own in self._boxes)

    def holds(self, path: Array) -> bool:
        """Return whether all tool centres are inside at every point of a path [N, J] of N periods."""
        return all(box.holds(path[:, own]) for box, own in self._boxes)

    def before(self, start: Array, goal: Array) -> Array:
        """Return `goal`, or for each arm that would be outside a point on its way from `start`, all [J]."""
        moved = goal
        for box, own in self._boxes:
            wanted = goal[own]
            inside = box.before(start[own], wanted)
            if inside is not wanted:
                moved = goal.copy() if moved is goal else moved
                moved[own] = inside
        return moved

    def along(self, start: Array, goal: Array) -> Array:
        """Return where each arm is to go when the way to `goal` leaves its box, all [J]."""
        return np.concatenate([box.along(start[own], goal[own]) for box, own in self._boxes])


def walls(low: Array, high: Array, chain: Chain | Sequence[Chain], floor: float = -math.inf) -> Walls:
    """Return the workspace of one arm, with corners [3], or of several, with corners [A, 3] of A arms.

    `floor`: m, of each arm in its own base frame. ValueError for corners of another shape.
    """
    if isinstance(chain, Chain):
        return Workspace(low, high, chain, floor)
    if low.shape != (len(chain), 3) or high.shape != low.shape:
        raise ValueError(f"the governor needs a workspace for each of {len(chain)} arms: two corners of three numbers")
    boxes = [Workspace(low[number], high[number], each, floor) for number, each in enumerate(chain)]
    return Workspaces(boxes, joint_slices([len(each.origins) for each in chain]))


def joint_slices(counts: Sequence[int]) -> list[slice]:
    """Return which joints are whose, for arms with so many joints, one after the other."""
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts)]
