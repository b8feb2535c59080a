"""Learning sanity: each sampler with PPO solves a bandit, and does not when advantages belong to other samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from toy_bandit import Policy, every_step, hybrid, learn, learnt_noise, sde

DRAWS: dict[str, Callable[..., Any]] = {
    "hybrid": hybrid,
    "flow-sde": every_step(sde, "sum"),
    "flow-noise": every_step(learnt_noise, "mean_steps"),
}


def test_the_start_is_known() -> None:
    """-(0.7 - 1.5)^2 - 0.218661^2, the exact variance of the ODE at K = 4."""
    torch.testing.assert_close(Policy().ode_reward(), torch.full((5,), -0.64 - 0.218661**2))


@pytest.mark.parametrize("name", DRAWS)
def test_it_learns(name: str) -> None:
    """ODE reward from -0.69 to above -0.05 for four seeds of five; 0 is the best there is."""
    reward = learn(DRAWS[name], updates=30)
    assert int((reward > -0.05).sum()) >= 4, reward


@pytest.mark.parametrize("name", DRAWS)
def test_it_does_not_learn_from_other_samples_advantages(name: str) -> None:
    reward = learn(DRAWS[name], updates=30, shuffled=True)
    assert int((reward < -0.3).sum()) >= 4, reward
