"""Rendered last images of real successes and failures of the simulated Panda.

Successes are the scripted expert's. Failures are of three kinds, so that no single habit gives them away: the expert
stopped before it was done, its actions shaken until the time ran out, and its actions bent to one side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Env, Observation
from pirl_contract.schema import Vector
from pirl_server import simulation
from pirl_server.training.supervised.demonstrations import Expert

KINDS = ("expert", "expert", "expert", "stopped", "shaken", "bent")
"""one is drawn for each attempt: half of them are undisturbed"""
FIRST_SEED = 300_000
"""after the simulated robot's initial states: nothing else uses these"""
STOPPED = 3, 15
"""control steps after which an attempt is stopped: drawn from here"""
SHAKEN, BENT = 1.5, 0.8
"""std of the noise, and the sideways push: in units of the action range"""


@dataclass(frozen=True)
class Attempt:
    """How one attempt ended."""

    kind: str
    success: bool
    """as the simulator says"""
    final: Observation


def attempts(task: str, count: int, seed: int) -> list[Attempt]:
    """Make so many attempts at a task with its camera; another seed has other initial states."""
    # Two environments in step: an image takes longer than a step, and only the last one is looked at.
    blind, seeing = simulation.fast_env(task), simulation.fast_env(task, sees=True)
    expert, steps = simulation.expert(task), simulation.max_steps(task)
    first = FIRST_SEED + 10_000 * seed
    try:
        return [_attempt(blind, seeing, expert, first + number, steps) for number in range(count)]
    finally:
        blind.close()
        seeing.close()


def _attempt(blind: Env, seeing: Env, expert: Expert, seed: int, max_steps: int) -> Attempt:
    draw = np.random.default_rng(seed)
    # Drawn, not taken in turn: the seed also chooses the instruction, which would give the kind away.
    kind = str(draw.choice(KINDS))
    scale = np.array([field.high or 1.0 for field in blind.contract.action], np.float32)
    observation, success = blind.reset(seed), False
    seeing.reset(seed)
    last = int(draw.integers(*STOPPED)) if kind == "stopped" else max_steps
    bend = scale * BENT * np.array([0, draw.choice([-1, 1]), 0, 0], np.float32)
    for _ in range(last):
        action = _disturbed(expert(observation), kind, draw, scale, bend)
        result, same = blind.step(action), seeing.step(action)
        assert result.success == same.success
        observation, success = blind.observe(), bool(result.success)
        if result.terminated or result.truncated:
            break
    return Attempt(kind, success, seeing.observe())


def _disturbed(
    action: Vector, kind: str, draw: np.random.Generator, scale: NDArray[np.float32], bend: NDArray[np.float32]
) -> Vector:
    noise = SHAKEN * scale * draw.standard_normal(len(action)).astype(np.float32)
    return (action + {"shaken": noise, "bent": bend}.get(kind, 0.0)).astype(np.float32)
