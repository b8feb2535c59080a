"""The server's only door to the simulator; imported by the composition roots (`app`, `job_main`) and by nothing else.

Every function takes a task id and is importable by name, so that worker processes can be given it.
"""

from __future__ import annotations

from pirl_contract import Contract, Env
from pirl_server.training.demonstrations import Expert


def check_task(task_id: str) -> None:
    """Raise ValueError, naming the known tasks, when this one is not among them."""
    from pirl_sim.tasks import task

    task(task_id)


def fast_env(task_id: str) -> Env:
    """The lean stepper, for rollouts in training."""
    from pirl_sim.env import make_env

    return make_env(task_id)


def reference_env(task_id: str) -> Env:
    """ManiSkill's own step, for every success rate that is reported."""
    from pirl_sim.env import make_env

    return make_env(task_id, stepper="maniskill")


def camera_env(task_id: str) -> Env:
    """ManiSkill's own step with the rendered camera, for policies that see."""
    from pirl_sim.env import make_env

    return make_env(task_id, stepper="maniskill", cameras=True)


def fast_camera_env(task_id: str) -> Env:
    """The lean stepper with the rendered camera, for training policies that see."""
    from pirl_sim.env import make_env

    return make_env(task_id, cameras=True)


def contract() -> Contract:
    """The simulated Panda's contract, camera included."""
    from pirl_sim.panda import panda_contract

    return panda_contract(cameras=True)


def instructions(task_id: str) -> tuple[str, ...]:
    """The sentences that mean this task."""
    from pirl_sim.tasks import task

    return task(task_id).instructions


def max_steps(task_id: str) -> int:
    """Control steps of one episode."""
    from pirl_sim.tasks import task

    return task(task_id).max_steps


def expert(task_id: str) -> Expert:
    """The scripted expert. Raises ValueError for a task that has none."""
    from pirl_sim.experts import EXPERTS

    check_task(task_id)
    if task_id not in EXPERTS:
        raise ValueError(f"task '{task_id}' has no scripted expert; there are: {', '.join(sorted(EXPERTS))}")
    return EXPERTS[task_id]
