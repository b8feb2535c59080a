"""Episodes of the scripted experts, played with noise and recorded without it.

Noise on what is executed, not on what is recorded (DART, Laskey et al. 2017), leads the arm off the expert's path and
shows how the expert comes back: a policy imitating few episodes then survives its own errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Image, Vector
from pirl_sim.env import PandaEnv, make_env
from pirl_sim.experts import expert_action
from pirl_sim.panda import ACTION_DIM, TCP_STEP_LIMIT

_RANGE = np.array([TCP_STEP_LIMIT] * 3 + [1.0], np.float32)
"""half the action range: noise_std 1 would reach from the middle to the limit"""


@dataclass(frozen=True)
class Demonstration:
    """One episode of T control steps: what the expert saw and what it wanted to do."""

    seed: int
    instruction: str
    states: Vector
    """[T, 35] before each action"""
    actions: Vector
    """[T, 4] the expert's actions, without the noise that was executed on top"""
    images: NDArray[np.uint8]
    """[T, height, width, 3] RGB before each action; T = 0 when recorded without camera"""
    success: bool


def demonstrations(
    task_id: str, seeds: Iterable[int], *, noise_std: float = 0.15, cameras: bool = False, image_size: int = 64
) -> Iterator[Demonstration]:
    """Yield one demonstration per seed, failed ones too; `noise_std` is a fraction of each action limit.

    The same seed gives the same episode. Raises ValueError for a task without an expert.
    """
    env = make_env(task_id, cameras=cameras, image_size=image_size)
    try:
        for seed in seeds:
            yield _demonstration(env, seed, noise_std)
    finally:
        env.close()


def _demonstration(env: PandaEnv, seed: int, noise_std: float) -> Demonstration:
    noise = np.random.default_rng(seed)
    observation = env.reset(seed)
    states, actions = [], []
    images: list[Image] = []
    while True:
        action = expert_action(env.task.id, observation.state)
        states.append(observation.state)
        actions.append(action)
        images.extend(observation.images.values())
        executed = action + (noise_std * noise.standard_normal(ACTION_DIM) * _RANGE).astype(np.float32)
        result = env.step(executed)
        if result.terminated or result.truncated:
            break
        observation = env.observe()
    frames = np.stack(images) if images else np.empty((0, 0, 0, 3), np.uint8)
    return Demonstration(seed, env.instruction, np.stack(states), np.stack(actions), frames, result.success)
