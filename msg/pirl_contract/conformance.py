"""Tests of the protocols, shipped with them: inherit a mixin, return your object, run the contract as tests.

class TestMyEnv(EnvConformance):
    def make_env(self): return MyEnv()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from pirl_contract.protocols import Env, Policy
from pirl_contract.schema import ActionChunk, Observation


def _check_raises(kind: type[Exception], call: Callable[[], object], what: str) -> None:
    """Fail unless the call raises `kind`; another exception passes through, with its traceback."""
    try:
        given = call()
    except kind:
        return
    raise AssertionError(f"{what} must raise {kind.__name__}, but returned {given!r}")


def _check_observation(env: Env, observation: Observation) -> None:
    shape, dim = observation.state.shape, env.contract.state_dim
    assert shape == (dim,), f"state must be [{dim}] as the contract says, got {list(shape)}"
    bad = np.flatnonzero(~np.isfinite(observation.state)).tolist()
    assert not bad, f"state is not finite at {bad}"
    assert observation.instruction, "the instruction is empty"
    sizes = {camera.name: (camera.height, camera.width, 3) for camera in env.contract.cameras}
    given = {name: image.shape for name, image in observation.images.items()}
    assert given == sizes, f"images must be {sizes} as the contract's cameras say, got {given}"


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
        np.testing.assert_array_equal(first, again, "reset(3) twice gave two states: draw all that is random from seed")
        assert not np.array_equal(first, other), "reset(3) and reset(4) gave the same state: the seed is not used"

    def test_observations_fit_the_contract(self) -> None:
        """State, images and instruction have the declared shapes, at reset and after a step; observing twice agrees."""
        env = self.make_env()
        _check_observation(env, env.reset(0))
        env.step(np.zeros(env.contract.action_dim, np.float32))
        once, twice = env.observe(), env.observe()
        env.close()
        _check_observation(env, once)
        np.testing.assert_array_equal(once.state, twice.state, "observing twice gave two states: observe must not step")

    def test_misuse_is_refused(self) -> None:
        """Stepping before reset, a wrong shape and values that are not finite raise; closing twice does not."""
        env = self.make_env()
        zero = np.zeros(env.contract.action_dim, np.float32)
        _check_raises(RuntimeError, lambda: env.step(zero), "step before the first reset")
        env.reset(0)
        longer = np.zeros(env.contract.action_dim + 1, np.float32)
        _check_raises(ValueError, lambda: env.step(longer), f"an action of {longer.size} numbers, one too many,")
        _check_raises(ValueError, lambda: env.step(np.full_like(zero, np.nan)), "an action of NaN")
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
        assert result.terminated or result.truncated, "1000 steps of zeros neither ended nor truncated the episode"
        _check_raises(RuntimeError, lambda: env.step(zero), "step after the end of the episode")
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
        assert isinstance(chunk, ActionChunk), f"infer must return an ActionChunk, got {type(chunk).__name__}"
        assert np.isfinite(chunk.actions).all(), "the chunk holds NaN or infinite actions"
        steps, rows = chunk.execute_horizon, chunk.actions.shape[0]
        assert 0 < steps <= rows, f"execute_horizon is {steps}, the chunk has {rows} actions"
        assert chunk.policy_version, "the chunk does not name its policy version"
        started, captured = chunk.start_time_ns, observation.capture_time_ns
        assert started == captured, f"start_time_ns {started} is not the observation's capture_time_ns {captured}"
        np.testing.assert_array_equal(observation.state, before, "infer changed its observation")

    def test_chunk_ids_are_unique_and_reset_is_repeatable(self) -> None:
        """Two inferences never share an id; resetting twice is harmless."""
        policy, observation = self.make_policy(), self.make_observation()
        policy.reset()
        policy.reset()
        first, second = policy.infer(observation).chunk_id, policy.infer(observation).chunk_id
        assert first != second, f"two inferences share the chunk id {first!r}"

    def test_a_state_of_wrong_length_is_refused(self) -> None:
        """ValueError, not a chunk."""
        policy, observation = self.make_policy(), self.make_observation()
        policy.reset()
        wrong = Observation(observation.images, np.zeros(observation.state.size + 1, np.float32), "x")
        _check_raises(ValueError, lambda: policy.infer(wrong), f"a state of {wrong.state.size} numbers, one too many,")
