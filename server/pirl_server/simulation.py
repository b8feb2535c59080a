"""The only module that imports the simulators; used by the composition roots (`app`, `job_main`) only.

Every function takes a task id (`PushCube-v1`, `metaworld/mt10`), raises ValueError for an unknown one, and is
importable by name, so that worker processes can be given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pirl_contract import Contract, Env
from pirl_server.training.code_version import code_version, versions_of
from pirl_server.training.supervised.demonstrations import Expert

if TYPE_CHECKING:
    from pirl_sim.simulators import Simulator


def check_task(task_id: str) -> None:
    """Raise ValueError, naming the known tasks or what is not installed, when this one can't be simulated."""
    _simulator(task_id).goal(task_id)


def fast_env(task_id: str, sees: bool = False) -> Env:
    """The lean stepper where there is one, for demonstrations and rollouts: the same states, sooner."""
    return _simulator(task_id).make_env(task_id, False, sees)


def reference_env(task_id: str, sees: bool = False) -> Env:
    """The simulator's own step, for every success rate that is reported; `sees`: with the rendered camera."""
    return _simulator(task_id).make_env(task_id, True, sees)


def contract(task_id: str = "PushCube-v1") -> Contract:
    """The contract of the task's simulated robot, camera included."""
    return _simulator(task_id).contract


def instructions(task_id: str) -> tuple[str, ...]:
    """The sentences that mean this task; of a suite, those of all its tasks."""
    return _simulator(task_id).goal(task_id).instructions


def max_steps(task_id: str) -> int:
    """Control steps of one episode."""
    return _simulator(task_id).goal(task_id).max_steps


def part(task_id: str, seed: int) -> str:
    """The task that the episode of this reset seed is of: the id itself unless it is a suite's."""
    return _simulator(task_id).part(task_id, seed)


def expert(task_id: str) -> Expert:
    """The scripted expert. Raises ValueError for a task that has none."""
    return _simulator(task_id).expert(task_id)


def setup(task_id: str) -> dict[str, str]:
    """What the outcomes of an evaluation depend on besides the policy: simulator and code, with versions."""
    chosen = _simulator(task_id)
    return {"simulator": versions_of(chosen.packages, chosen.elsewhere()), "pirl": code_version()}


def _simulator(task_id: str) -> Simulator:
    from pirl_sim.simulators import simulator

    return simulator(task_id)
