"""Loads a simulated arm by name at run time, so that the robot side imports no simulator."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from pirl_contract import Contract
from pirl_contract.schema import Image, Vector


class SimulatedArm(Protocol):
    """An arm that moves on with each `step`; poses are xyz + wxyz, metres and radians. Called by one thread."""

    contract: Contract
    joint_names: Sequence[str]
    success: bool
    """whether the task has been solved since `reset`"""

    @property
    def joint_positions(self) -> Vector:
        """[9]: seven arm joints, two fingers."""

    @property
    def joint_velocities(self) -> Vector:
        """[9]."""

    @property
    def tcp_pose(self) -> Vector:
        """[7]."""

    @property
    def object_pose(self) -> Vector:
        """[7]."""

    @property
    def goal_position(self) -> Vector:
        """[3]."""

    def reset(self, seed: int) -> str:
        """Place everything for `seed`; returns the instruction."""

    def step(self, joint_targets: Vector | None, gripper: float | None) -> None:
        """Let one control period pass; None keeps the last target. Gripper in [-1 closed, 1 open].

        Targets [J] in rad.
        """

    def images(self) -> dict[str, Image]:
        """Render the cameras by name. Each is uint8 RGB [height, width, 3]."""

    def close(self) -> None:
        """Free it; calling it twice changes nothing."""


class RenderDelay:
    """How long a state waits for a command before it is rendered: only what the policy is asked about needs images.

    In the rest of a chunk commands follow soon, and rendering costs more than a step. How soon depends on what else the
    machine does, so the delay is kept where about `SHARE` of the states are rendered, more than are asked about.
    """

    SHARE, LEAST_S, MOST_S = 0.3, 0.004, 0.02
    _RATE = 0.1

    def __init__(self) -> None:
        self.s = self.LEAST_S

    def commanded(self, rendered: bool) -> None:
        """Take in whether the state had been rendered when its command came."""
        change = 1.0 - self.SHARE if rendered else -self.SHARE
        self.s = min(self.MOST_S, max(self.LEAST_S, self.s * (1.0 + self._RATE * change)))


def load_simulator(spec: str, task: str, image_size: int) -> SimulatedArm:
    """Call `module:function` of `spec` with task and image_size. ValueError: no such function, or it rejected."""
    make = _function("simulator", spec)
    try:
        arm: SimulatedArm = make(task, image_size=image_size)
    except RuntimeError as error:
        raise ValueError(f"simulator '{spec}' cannot start: {error}") from error
    return arm


def load_expert(spec: str, task: str) -> Callable[[Vector], Vector]:
    """Return the expert of a task, a function from state [35] to action [4]: `module:function` of `spec`.

    That is called with task and state. ValueError: no such function.
    """
    return partial(_function("expert", spec), task)


def _function(what: str, spec: str) -> Any:
    module_name, _, function_name = spec.partition(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{what} '{spec}' is not a module:function that can be imported: {error}") from error
