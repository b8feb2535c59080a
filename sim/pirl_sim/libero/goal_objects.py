"""Where the things are that a task of LIBERO is about: a state that needs no camera. Frame: MuJoCo's world, m."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOALS = 2
"""of the conditions that make a task solved, as many as any of LIBERO's forty tasks has"""
GOAL_DIM = 10


class GoalObjects:
    """The first and last name in each condition, as ("in", thing, place) has them; one alone counts twice."""

    def __init__(self, base: Any) -> None:
        """`base`: LIBERO's environment within its `ControlEnv`."""
        conditions: Sequence[Sequence[str]] = base.parsed_problem["goal_state"]
        pairs = [(condition[1], condition[-1]) for condition in conditions[:GOALS]]
        self._pairs = [pairs[0]] * (GOALS - len(pairs)) + pairs if len(pairs) < GOALS else pairs
        self._base = base

    def state(self) -> NDArray[np.float64]:
        """Return [20]: for both conditions the thing's position and rotation (quaternion wxyz), the place's position.

        A task with one condition has it twice.
        """
        return np.concatenate([part for pair in self._pairs for part in self._of(*pair)])

    def _of(self, thing: str, place: str) -> tuple[NDArray[np.float64], ...]:
        position, rotation = self._pose(thing)
        return position, rotation, self._pose(place)[0]

    def _pose(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        data, bodies = self._base.sim.data, self._base.obj_body_id
        if name in bodies:
            rotation = np.array(data.body_xquat[bodies[name]])
            return np.array(data.body_xpos[bodies[name]]), rotation if rotation[0] >= 0 else -rotation
        return np.array(data.get_site_xpos(name)), np.array([1.0, 0.0, 0.0, 0.0])
