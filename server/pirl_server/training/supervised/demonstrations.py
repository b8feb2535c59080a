"""Demonstrations of a scripted expert as training samples of flow matching.

Noise is added to the executed action, never to the recorded one (DART, arXiv 1703.09327): the arm visits states off the
expert's path and the record says how to come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pirl_contract import Env, Observation
from pirl_contract.schema import Vector
from pirl_server.policy.features import Array
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Images
from pirl_server.training.chunk_dataset import ChunkDataset, ImageRows, make_windows

Expert = Callable[[Observation], Vector]
"""observation -> action [D] in the contract's units; of many tasks, the instruction says which is asked for"""
Demonstration = tuple[list[Observation], Array]
"""observations of one episode and the expert's actions [T, D]"""


def demonstrate(env: Env, expert: Expert, seed: int, noise: float, max_steps: int) -> Demonstration:
    """Record one episode; `noise` is the std on the executed action in units of the action range."""
    draw = np.random.default_rng(seed)
    scale = np.array([field.high or 1.0 for field in env.contract.action], np.float32)
    observation = env.reset(seed)
    observations, actions = [], []
    for _ in range(max_steps):
        action = expert(observation)
        observations.append(observation)
        actions.append(action)
        shaken = action + noise * scale * draw.standard_normal(len(action)).astype(np.float32)
        result = env.step(shaken.astype(np.float32))
        if result.terminated or result.truncated:
            break
        observation = env.observe()
    return observations, np.stack(actions)


def windows_of(policy: FlowPolicy, demonstrations: Iterable[Demonstration]) -> ChunkDataset:
    """One window per step: its features and the H actions from there.

    Beyond the end the last action fills the chunk and is not learnt: whether an arm that repeats it stands still or
    moves on depends on the robot's contract.
    """
    states, sentences, chunks, valid, images = [], [], [], [], ImageRows(policy)
    for observations, actions in demonstrations:
        rows = np.arange(len(actions))[:, None] + np.arange(policy.horizon)
        chunks.append(actions[rows.clip(max=len(actions) - 1)])
        valid.append(rows < len(actions))
        states.append(np.stack([observation.state for observation in observations]))
        sentences += [observation.instruction for observation in observations]
        images.add(_images(observations), np.arange(len(observations)))
    actions_MHD = np.concatenate(chunks)
    return make_windows(policy, np.concatenate(states), sentences, actions_MHD, images.finish(), np.concatenate(valid))


def _images(observations: list[Observation]) -> Images:
    names = observations[0].images
    return {name: np.stack([observation.images[name] for observation in observations]) for name in names}
