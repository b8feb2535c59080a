"""Tests of the protocols, shipped with them: inherit a mixin, return your object, run the contract as tests.

class TestMyEnv(EnvConformance):
    def make_env(self): return MyEnv()
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from pirl_contract.protocols import Env, Policy
from pirl_contract.schema import ActionChunk, Observation


def _raises(kind: type[Exception], call: object) -> bool:
    assert callable(call)
    try:
        call()
    except kind:
        return True
    return False


def _check_observation(env: Env, observation: Observation) -> None:
    assert observation.state.shape == (env.contract.state_dim,)
    assert np.isfinite(observation.state).all()
    assert observation.instruction
    sizes = {camera.name: (camera.height, camera.width, 3) for camera in env.contract.cameras}
    assert {name: image.shape for name, image in observation.images.items()} == sizes


class EnvConformance(ABC):
    """What every `Env` keeps."""

    @abstractmethod
    def make_env(self) -> Env:
        """Return a new environment; the suite closes it."""

    def test_reset_is_a_function_of_the_seed(self) -> None:
        """The same seed gives the same state, another seed another one."""
        env = self.make_env()
        first, again, other = env.reset(3).state, env.reset(3).state, env.reset(4).state
        env.close()
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_observations_fit_the_contract(self) -> None:
        """State, images and instruction have the declared shapes, at reset and after a step; observing twice agrees."""
        env = self.make_env()
        _check_observation(env, env.reset(0))
        env.step(np.zeros(env.contract.action_dim, np.float32))
        once, twice = env.observe(), env.observe()
        env.close()
        _check_observation(env, once)
        np.testing.assert_array_equal(once.state, twice.state)

    def test_misuse_is_refused(self) -> None:
        """Stepping before reset, a wrong shape and values that are not finite raise; closing twice does not."""
        env = self.make_env()
        zero = np.zeros(env.contract.action_dim, np.float32)
        assert _raises(RuntimeError, lambda: env.step(zero))
        env.reset(0)
        assert _raises(ValueError, lambda: env.step(np.zeros(env.contract.action_dim + 1, np.float32)))
        assert _raises(ValueError, lambda: env.step(np.full_like(zero, np.nan)))
        env.close()
        env.close()

    def test_an_episode_ends_and_then_refuses_steps(self) -> None:
        """Doing nothing runs into the time limit; a step after the end raises RuntimeError."""
        env = self.make_env()
        env.reset(0)
        zero = np.zeros(env.contract.action_dim, np.float32)
        for _ in range(1000):
            result = env.step(zero)
            if result.terminated or result.truncated:
                break
        assert result.terminated or result.truncated
        assert _raises(RuntimeError, lambda: env.step(zero))
        env.close()


class PolicyConformance(ABC):
    """What every `Policy` keeps."""

    @abstractmethod
    def make_policy(self) -> Policy:
        """Return a policy that is ready to infer."""

    @abstractmethod
    def make_observation(self) -> Observation:
        """Return an observation that fits it."""

    def test_a_chunk_is_well_formed(self) -> None:
        """Shape, horizon and version are there and the observation is left as it was."""
        policy, observation = self.make_policy(), self.make_observation()
        before = observation.state.copy()
        policy.reset()
        chunk = policy.infer(observation)
        assert isinstance(chunk, ActionChunk)
        assert np.isfinite(chunk.actions).all()
        assert 0 < chunk.execute_horizon <= chunk.actions.shape[0]
        assert chunk.policy_version
        assert chunk.start_time_ns == observation.capture_time_ns
        np.testing.assert_array_equal(observation.state, before)

    def test_chunk_ids_are_unique_and_reset_is_repeatable(self) -> None:
        """Two inferences never share an id; resetting twice is harmless."""
        policy, observation = self.make_policy(), self.make_observation()
        policy.reset()
        policy.reset()
        assert policy.infer(observation).chunk_id != policy.infer(observation).chunk_id

    def test_a_state_of_wrong_length_is_refused(self) -> None:
        """ValueError, not a chunk."""
        policy, observation = self.make_policy(), self.make_observation()
        policy.reset()
        wrong = Observation(observation.images, np.zeros(observation.state.size + 1, np.float32), "x")
        assert _raises(ValueError, lambda: policy.infer(wrong))
