"""The simulated environment keeps the `Env` contract, with either stepper; and what it adds to it."""

from __future__ import annotations

import numpy as np
import pytest

from pirl_contract.conformance import EnvConformance
from pirl_sim.maniskill.env import make_env
from pirl_sim.maniskill.experts import expert_action
from pirl_sim.maniskill.tasks import TASKS, task

pytestmark = pytest.mark.sim


class TestLeanEnv(EnvConformance):
    def make_env(self):
        return make_env("PushCube-v1")


class TestManiSkillEnv(EnvConformance):
    def make_env(self):
        return make_env("PickCube-v1", stepper="maniskill")


def test_rewards_of_a_success_telescope() -> None:
    """Sum = 1 + 0.5 (1 - phi at the start), whatever the way: so two detours earn the same."""
    env = make_env("PushCube-v1")
    state, total, steps = env.reset(0).state, 0.0, 0
    phi_start = env._phi
    while True:
        result = env.step(expert_action("PushCube-v1", state))
        total, state, steps = total + result.reward, env.observe().state, steps + 1
        if result.terminated or result.truncated:
            break
    env.close()
    assert result.success
    assert steps < env.task.max_steps
    assert 0.0 < phi_start < 0.5
    assert total == pytest.approx(1.0 + 0.5 * (1.0 - phi_start))


def test_the_time_limit_truncates() -> None:
    env = make_env("PushCube-v1")
    env.reset(0)
    results = [env.step(np.zeros(4, np.float32)) for _ in range(env.task.max_steps)]
    env.close()
    assert [r.truncated for r in results] == [False] * (env.task.max_steps - 1) + [True]
    assert not any(r.terminated for r in results)


def test_actions_beyond_the_limits_are_clipped() -> None:
    one, two = make_env("PushCube-v1"), make_env("PushCube-v1")
    one.reset(1), two.reset(1)
    one.step(np.float32([9.0, -9.0, 0.0, 4.0])), two.step(np.float32([0.1, -0.1, 0.0, 1.0]))
    np.testing.assert_array_equal(one.observe().state, two.observe().state)
    one.close(), two.close()


@pytest.mark.parametrize("task_id", TASKS)
def test_the_instruction_follows_the_seed(task_id: str) -> None:
    env = make_env(task_id)
    sentences = [env.reset(seed).instruction for seed in range(len(env.task.instructions))]
    env.close()
    assert sentences == list(task(task_id).instructions)


def test_unknown_names_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"unknown task 'Juggle-v9'; known: PushCube-v1"):
        make_env("Juggle-v9")
    with pytest.raises(ValueError, match="unknown stepper 'fast'; known: lean, maniskill"):
        make_env("PushCube-v1", stepper="fast")  # type: ignore[arg-type]
