"""The lean stepper against ManiSkill's own step: same seed, same actions."""

from __future__ import annotations

import numpy as np
import pytest

from pirl_sim.maniskill.env import PandaEnv, make_env
from pirl_sim.maniskill.experts import EXPERTS, expert_action
from pirl_sim.maniskill.tasks import TASKS

pytestmark = pytest.mark.sim

STATE_BOUND = 1e-6
"""rad, m, rad/s and m/s; the drive targets are bit-equal, so in practice the difference is 0"""
REWARD_BOUND = 1e-6
SEEDS = (0, 1, 7)


def _actions(task_id: str, env: PandaEnv, rng: np.random.Generator) -> np.ndarray:
    """The expert with much noise: goes through free motion, contact, grasp and success."""
    noise = rng.normal(0, 0.25, 4) * [0.1, 0.1, 0.1, 1.0]
    expert = expert_action(task_id, env.observe().state) if task_id in EXPERTS else rng.uniform(-0.1, 0.1, 4)
    return (expert + noise).astype(np.float32)


@pytest.mark.parametrize("task_id", TASKS)
def test_lean_and_maniskill_agree(task_id: str) -> None:
    lean, reference = make_env(task_id), make_env(task_id, stepper="maniskill")
    ends, moved = 0, 0.0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        first, other = lean.reset(seed), reference.reset(seed)
        np.testing.assert_array_equal(first.state, other.state)
        for _ in range(lean.task.max_steps):
            action = _actions(task_id, lean, rng)
            mine, theirs = lean.step(action), reference.step(action)
            state = lean.observe().state
            np.testing.assert_allclose(state, reference.observe().state, atol=STATE_BOUND)
            assert abs(mine.reward - theirs.reward) < REWARD_BOUND
            assert (mine.success, mine.terminated, mine.truncated) == (
                theirs.success,
                theirs.terminated,
                theirs.truncated,
            )
            if mine.terminated or mine.truncated:
                ends += mine.success
                break
        moved = max(moved, float(np.abs(state - first.state).max()))
    lean.close(), reference.close()
    assert moved > 0.1, "nothing happened: the comparison would prove nothing"
    assert ends > 0 or task_id not in EXPERTS, "no success was compared"


def test_parity_notices_a_different_action() -> None:
    """Negative control: a millimetre of difference in one action exceeds the bound by far."""
    lean, reference = make_env("PushCube-v1"), make_env("PushCube-v1", stepper="maniskill")
    lean.reset(0), reference.reset(0)
    lean.step(np.float32([0.05, 0.0, 0.0, 0.0])), reference.step(np.float32([0.051, 0.0, 0.0, 0.0]))
    difference = np.abs(lean.observe().state - reference.observe().state).max()
    lean.close(), reference.close()
    assert difference > 100 * STATE_BOUND


def test_environments_of_one_process_do_not_disturb_each_other() -> None:
    alone, one, two = (make_env("PushCube-v1") for _ in range(3))
    action = np.float32([0.05, -0.03, -0.08, -1.0])
    alone.reset(5), one.reset(5), two.reset(6)
    for _ in range(8):
        alone.step(action), one.step(action), two.step(-action)
    np.testing.assert_array_equal(alone.observe().state, one.observe().state)
    assert not np.array_equal(one.observe().state, two.observe().state)
    for env in (alone, one, two):
        env.close()
