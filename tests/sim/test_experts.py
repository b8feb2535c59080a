"""The scripted experts solve their tasks, and demonstrations record what they wanted, not the noise."""

from __future__ import annotations

import numpy as np
import pytest

from pirl_sim.demonstrations import demonstrations
from pirl_sim.experts import EXPERTS, expert_action
from pirl_sim.panda import STATE_DIM

pytestmark = pytest.mark.sim
SEEDS = range(1000, 1020)


@pytest.mark.parametrize("task_id", EXPERTS)
def test_the_expert_succeeds_within_the_time_limit(task_id: str) -> None:
    episodes = list(demonstrations(task_id, SEEDS, noise_std=0.0))
    assert np.mean([episode.success for episode in episodes]) >= 0.95
    assert all(len(episode.states) <= 48 for episode in episodes)


def test_recorded_actions_are_the_experts_and_the_executed_ones_are_noisy() -> None:
    (clean,) = demonstrations("PushCube-v1", [3], noise_std=0.0)
    (noisy,) = demonstrations("PushCube-v1", [3], noise_std=0.15)
    for episode in (clean, noisy):
        wanted = [expert_action("PushCube-v1", state) for state in episode.states]
        np.testing.assert_array_equal(episode.actions, wanted)
        assert episode.states.shape == (len(episode.actions), STATE_DIM)
    np.testing.assert_array_equal(clean.states[0], noisy.states[0])
    assert np.abs(clean.states[1] - noisy.states[1]).max() > 1e-3


def test_a_demonstration_is_a_function_of_its_seed() -> None:
    first, again = (next(demonstrations("PickCube-v1", [5])) for _ in range(2))
    np.testing.assert_array_equal(first.states, again.states)


def test_a_task_without_expert_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no expert for 'PullCube-v1'; there are: PushCube-v1"):
        expert_action("PullCube-v1", np.zeros(STATE_DIM, np.float32))
