"""`rollout` asks, plays `execute_horizon` actions, asks again; and the fakes keep the seams they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from contract_fakes import FakeEnv, FakePolicy

from pirl_contract import Env, Observation, Policy, rollout
from pirl_contract.conformance import EnvConformance, PolicyConformance


class TestFakeEnv(EnvConformance):
    def make_env(self) -> Env:
        return FakeEnv()


class TestFakePolicy(PolicyConformance):
    def make_policy(self) -> Policy:
        return FakePolicy()

    def make_observation(self) -> Observation:
        return FakeEnv().reset(0)


def test_conformance_finds_an_env_that_steps_on_after_its_end() -> None:
    """Negative control: the shipped suite is not vacuous."""

    class Endless(FakeEnv):
        def step(self, action: np.ndarray):  # type: ignore[no-untyped-def]
            self._seed = self._seed or 0
            return super().step(action)

    class Suite(EnvConformance):
        def make_env(self) -> Env:
            return Endless()

    with pytest.raises(AssertionError, match="after the end of the episode must raise RuntimeError, but returned"):
        Suite().test_an_episode_ends_and_then_refuses_steps()


def test_only_the_executed_part_of_each_chunk_is_played() -> None:
    env, policy = FakeEnv(limit=7), FakePolicy(horizon=5, execute_horizon=3)
    result = rollout(env, policy, seed=0, max_steps=100)
    assert env.played == [0, 1, 2, 100, 101, 102, 200]
    assert (result.steps, result.total_reward, result.success) == (7, 7.0, False)
    assert (policy.calls, policy.resets, env.observed) == (3, 1, 2)


@pytest.mark.parametrize(("max_steps", "calls"), [(0, 0), (1, 1), (3, 1), (4, 2), (6, 2)])
def test_max_steps_is_the_last_word(max_steps: int, calls: int) -> None:
    env, policy = FakeEnv(), FakePolicy()
    assert rollout(env, policy, 0, max_steps).steps == len(env.played) == max_steps
    assert policy.calls == calls


def test_success_ends_an_episode_or_counts_on_the_way() -> None:
    ended = rollout(FakeEnv(success_at=2), FakePolicy(), 0, 100)
    assert (ended.success, ended.steps) == (True, 2)
    passed = rollout(FakeEnv(success_at=2, ends=False, limit=9), FakePolicy(), 0, 100)
    assert (passed.success, passed.steps) == (True, 9), "success at step 2 counts though the last step has none"
    assert not rollout(FakeEnv(success_at=10, limit=9), FakePolicy(), 0, 100).success


def test_versions_are_listed_once_in_order() -> None:
    policy = FakePolicy(versions=("v2", "v2", "v1", "v2"))
    assert rollout(FakeEnv(limit=12), policy, 0, 100).policy_versions == ("v2", "v1")
