"""The scripted experts solve their tasks; doing nothing does not."""

from __future__ import annotations

import numpy as np
import pytest

from pirl_sim.maniskill.env import PandaEnv, make_env
from pirl_sim.maniskill.experts import EXPERTS, expert_action
from pirl_sim.maniskill.panda import ACTION_DIM, STATE_DIM

pytestmark = pytest.mark.sim
SEEDS = range(1000, 1020)


def succeeds(env: PandaEnv, seed: int, idle: bool = False) -> bool:
    state = env.reset(seed).state
    while True:
        result = env.step(np.zeros(ACTION_DIM, np.float32) if idle else expert_action(env.task.id, state))
        if result.terminated or result.truncated:
            return result.success
        state = env.observe().state


@pytest.mark.parametrize("task_id", EXPERTS)
def test_the_expert_succeeds_within_the_time_limit(task_id: str) -> None:
    env = make_env(task_id)
    assert np.mean([succeeds(env, seed) for seed in SEEDS]) >= 0.95
    assert not any(succeeds(env, seed, idle=True) for seed in SEEDS[:3])
    env.close()


def test_a_task_without_expert_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(EXPERTS, "PullCube-v1")
    with pytest.raises(ValueError, match=r"no expert for 'PullCube-v1'; there are: PushCube-v1"):
        expert_action("PullCube-v1", np.zeros(STATE_DIM, np.float32))
