"""Rollouts that go on from call to call, count right, and travel as bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from itertools import count

import numpy as np
import pytest
from toy_arm import INSTRUCTIONS, ToyEnv, toy_policy

from pirl_contract import Env
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector


def collector(envs: list[ToyEnv], execute_horizon: int = 2, keep_bytes: int = 0) -> Collector:
    """A collector whose environments the test keeps hold of."""
    rest = iter(envs)
    make: Callable[[], Env] = lambda: next(rest)  # noqa: E731
    policy = toy_policy(execute_horizon=execute_horizon, sees=envs[0].sees)
    return Collector(make, policy, len(envs), count(10), max_steps=5, keep_bytes=keep_bytes)


def test_the_environments_go_on_from_one_call_to_the_next() -> None:
    envs = [ToyEnv(length=5), ToyEnv(length=5)]
    rollouts = collector(envs)
    first = rollouts.collect(2)
    assert [env.resets for env in envs] == [1, 1]
    assert not first.done_TN.any()
    assert len(first.episode_steps) == 0
    second = rollouts.collect(1)
    assert second.done_TN.all(), "5 steps: two chunks of 2, and one step of the third"
    assert [env.resets for env in envs] == [2, 2]
    np.testing.assert_array_equal(second.episode_steps, [5, 5])
    np.testing.assert_array_equal(first.last_features_NF, second.features_TNF[0])


def test_env_steps_are_those_really_taken() -> None:
    envs = [ToyEnv(length=5), ToyEnv(length=3)]
    batch = collector(envs).collect(7)
    assert batch.env_steps.tolist() == [sum(env.total_steps for env in envs)]
    assert batch.done_TN.sum(axis=0).tolist() == [2, 3], "5 steps are 3 decisions, 3 steps are 2"
    assert sorted(batch.episode_steps.tolist()) == [3, 3, 3, 5, 5]
    assert batch.episode_success.tolist() == [False] * 5
    easy = collector([ToyEnv(length=5, tolerance=1e9)]).collect(3)
    assert (easy.env_steps.tolist(), easy.episode_steps.tolist()) == ([3], [1, 1, 1])
    assert easy.episode_success.all()
    assert easy.done_TN.all()


def test_rewards_are_summed_over_the_executed_steps() -> None:
    batch = collector([ToyEnv(length=3)]).collect(2)
    replayed, env = [], ToyEnv(length=3)
    env.reset(11)  # 10 seeds the collector's noise
    actions = toy_policy().to_actions(_last_latents(), np.zeros((1, 21), np.float32))
    for chunk in actions:
        rewards = []
        for action in chunk:
            rewards.append(env.step(action).reward)
            if env.steps < 0:
                break
        replayed.append(sum(rewards))
    np.testing.assert_allclose(batch.reward_TN[:, 0], replayed, rtol=1e-5)


def _last_latents():  # type: ignore[no-untyped-def]
    """Chains of the same collector's two decisions, taken where they are drawn."""
    chains = []
    rollouts = collector([ToyEnv(length=3)])
    draw = rollouts._explorer.draw

    def kept(*arguments):  # type: ignore[no-untyped-def]
        drawn = draw(*arguments)
        chains.append(drawn.action[0].clone())
        return drawn

    rollouts._explorer.draw = kept  # type: ignore[method-assign]
    rollouts.collect(2)
    import torch

    return torch.stack(chains)


def test_what_is_stored_is_the_stochastic_step_and_the_elapsed_share() -> None:
    batch = collector([ToyEnv(length=5)]).collect(6)
    np.testing.assert_allclose(batch.features_TNF[:, 0, -1], [0, 0.4, 0.8, 0, 0.4, 0.8], rtol=1e-6)
    assert batch.last_features_NF[0, -1] == 0.0
    sentences = [INSTRUCTIONS.index(text) for text in ("do the one right thing", "do it")]
    assert batch.sentence_TN[:, 0].tolist() == [sentences[0]] * 3 + [sentences[1]] * 3
    assert (batch.index_TN >= 0).all()
    assert np.abs(batch.chain_TNKHD[:, :, 1] - batch.chain_TNKHD[:, :, 0]).max() > 0


def test_the_density_is_that_of_the_executed_entries() -> None:
    whole = collector([ToyEnv(length=5)]).collect(1)
    part = collector([ToyEnv(length=5)], execute_horizon=1).collect(1)
    np.testing.assert_array_equal(whole.chain_TNKHD, part.chain_TNKHD)
    assert abs(float(whole.log_prob_TN[0, 0] - part.log_prob_TN[0, 0])) > 1e-3


def test_the_same_seeds_give_the_same_batch() -> None:
    first, again = (collector([ToyEnv(length=5), ToyEnv(length=2)]).collect(4) for _ in range(2))
    assert first.to_bytes() == again.to_bytes()


@pytest.mark.parametrize(("sees", "keep_bytes"), [(False, 0), (True, 0), (True, 1 << 20)])
def test_a_batch_comes_back_from_bytes(sees: bool, keep_bytes: int) -> None:
    batch = collector([ToyEnv(length=4, sees=sees)], keep_bytes=keep_bytes).collect(3)
    assert (batch.images is not None, batch.prefix is not None) == (sees and not keep_bytes, sees and keep_bytes > 0)
    found = DecisionBatch.from_bytes(batch.to_bytes())
    for field in fields(DecisionBatch):
        before, after = getattr(batch, field.name), getattr(found, field.name)
        if field.name in ("images", "prefix"):
            assert (before is None) == (after is None)
            for name, array in (before or {}).items():
                assert array.dtype == after[name].dtype
                np.testing.assert_array_equal(array, after[name])
        elif before is None:
            assert after is None
        else:
            assert before.dtype == after.dtype, field.name
            np.testing.assert_array_equal(before, after, err_msg=field.name)
    nothing_ended = collector([ToyEnv(length=9)]).collect(1)
    assert DecisionBatch.from_bytes(nothing_ended.to_bytes()).episode_success.shape == (0,)


def test_the_pixels_kept_are_those_of_the_decision() -> None:
    env = ToyEnv(length=4, sees=True)
    batch = collector([env]).collect(1)
    assert batch.images is not None
    assert batch.state_TNS is not None
    first = ToyEnv(sees=True).reset(11)
    np.testing.assert_array_equal(batch.images["wrist"][0, 0], first.images["wrist"])
    np.testing.assert_array_equal(batch.state_TNS[0, 0], first.state)


def test_without_a_camera_nothing_is_kept_that_nobody_needs() -> None:
    batch = collector([ToyEnv(length=4)]).collect(1)
    assert batch.state_TNS is None
    assert batch.images is None


def test_merged_pictures_lie_side_by_side() -> None:
    parts = [collector([ToyEnv(length=length, sees=True)]).collect(3) for length in (5, 2)]
    merged = DecisionBatch.merge(parts)
    for lane, part in enumerate(parts):
        assert merged.images is not None
        assert part.images is not None
        np.testing.assert_array_equal(merged.images["base"][:, lane], part.images["base"][:, 0])


def test_merged_batches_lie_side_by_side() -> None:
    parts = [collector([ToyEnv(length=length)] * envs).collect(3) for length, envs in ((5, 1), (2, 1))]
    merged = DecisionBatch.merge(parts)
    for name in ("features_TNF", "chain_TNKHD", "reward_TN", "done_TN", "sentence_TN"):
        for lane, part in enumerate(parts):
            np.testing.assert_array_equal(getattr(merged, name)[:, lane], getattr(part, name)[:, 0], err_msg=name)
    assert merged.last_features_NF.shape == (2, 33)
    assert merged.env_steps.tolist() == [sum(int(part.env_steps[0]) for part in parts)]
    assert merged.episode_steps.tolist() == [5, 2, 2, 2]


def test_closing_closes_every_environment() -> None:
    envs = [ToyEnv(length=5), ToyEnv(length=5)]
    rollouts = collector(envs)
    rollouts.close()
    for env in envs:
        with pytest.raises(RuntimeError):
            env.step(np.zeros(2, np.float32))
