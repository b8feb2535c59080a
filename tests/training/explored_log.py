"""Episodes that a toy policy really explored: chains, densities and what was executed agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from toy_arm import CONTRACT, INSTRUCTIONS, toy_observation
from toy_log import episode

from pirl_server.episodes.schema import Calls, Episode, Steps
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import PolicyRequest, PolicySample

LOW = np.array([field.low for field in CONTRACT.action], np.float32)
HIGH = np.array([field.high for field in CONTRACT.action], np.float32)
Outcome = Callable[[np.ndarray], bool]
"""chunks [C, H, D] of an episode -> its success"""


def good_on_average(chunk_CHD: np.ndarray) -> bool:
    """More of the first action dimension than the toy policies draw in about half of the episodes."""
    return bool(chunk_CHD[..., 0].mean() > 0.05)


def explored(
    policy: FlowPolicy, number: int, outcome: Outcome = good_on_average, decisions: int = 3, explore: bool = True
) -> Episode:
    """One episode of whole decisions, labelled by its outcome."""
    observations = [toy_observation(2 * (1000 * number + index)) for index in range(decisions)]
    requests = [PolicyRequest(each, explore, 7919 * number + index) for index, each in enumerate(observations)]
    drawn = [each for each in policy.sample_batch(requests) if isinstance(each, PolicySample)]
    chunk = np.stack([sample.actions for sample in drawn])
    plain = episode(number, outcome(chunk), np.zeros(2, np.float32), decisions, instruction=INSTRUCTIONS[0])
    calls = replace(
        plain.calls,
        state=np.stack([each.state for each in observations]),
        chunk=chunk,
        chain=np.stack([sample.chain for sample in drawn]),
        sde_index=np.array([sample.sde_index for sample in drawn], np.int32),
        log_prob=np.stack([sample.log_prob for sample in drawn]),
        std=np.array([sample.std for sample in drawn], np.float32),
        noise_level=np.array([sample.noise_level for sample in drawn], np.float32),
    )
    steps = replace(plain.steps, executed=chunk.reshape(-1, 2))
    info = replace(plain.info, policy_versions=(policy.version,))
    return replace(plain, info=info, calls=calls, steps=steps)


def log_of(policy: FlowPolicy, numbers: Sequence[int] = range(24), **settings: Any) -> list[Episode]:
    """Some of those."""
    return [explored(policy, number, **settings) for number in numbers]


def with_steps(logged: Episode, **columns: Any) -> Episode:
    """The episode with some columns of its steps exchanged."""
    steps: Steps = replace(logged.steps, **columns)
    return replace(logged, steps=steps)


def with_calls(logged: Episode, **columns: Any) -> Episode:
    """The episode with some columns of its calls exchanged."""
    calls: Calls = replace(logged.calls, **columns)
    return replace(logged, calls=calls)
