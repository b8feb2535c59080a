"""MetaWorld's own scripted policies as one expert for all its tasks, selected by the instruction."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np

from pirl_contract.schema import Observation, Vector
from pirl_sim.metaworld.sawyer import ACTION_SCALE, to_observation
from pirl_sim.metaworld.tasks import BY_SENTENCE

SLOWER = {"bin-picking-v3": 0.25, "peg-insert-side-v3": 0.6}
"""share of its motion where a script, held for four steps, would lift before its fingers have closed"""


def metaworld_expert(observation: Observation) -> Vector:
    """Return the action [4] in the contract's units. Raises ValueError for a sentence that means no task."""
    if observation.instruction not in BY_SENTENCE:
        raise ValueError(f"MetaWorld has no task with instruction '{observation.instruction}'")
    name = BY_SENTENCE[observation.instruction]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an action will be clipped, as we do here
        action = _policy(name).get_action(to_observation(observation.state))
    action[:3] *= SLOWER.get(name, 1.0)
    return (np.clip(action, -1.0, 1.0) * ACTION_SCALE).astype(np.float32)


@cache
def _policy(name: str) -> Any:
    from metaworld.policies import ENV_POLICY_MAP

    policy: Any = ENV_POLICY_MAP[name]
    return policy()
