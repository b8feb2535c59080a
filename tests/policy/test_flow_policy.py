"""The served policy: a function of observation and seed, refusing what it cannot read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_arm import BEST, SCALE, toy_observation, toy_policy

from pirl_contract import Camera, Observation, Policy
from pirl_contract.conformance import PolicyConformance
from pirl_server.model.pi0.config import tiny
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.flow_policy import MAX_CACHED_PREFIXES, FlowPolicy
from pirl_server.policy.local_policy import LocalPolicy

HERE = toy_observation().state[None]


class TestLocalPolicy(PolicyConformance):
    def make_policy(self) -> Policy:
        return LocalPolicy(toy_policy(), seed=0)

    def make_observation(self) -> Observation:
        return toy_observation()


@pytest.mark.parametrize("explore", [False, True])
def test_the_same_seed_gives_the_same_chunk_bitwise(explore: bool) -> None:
    policy, observation = toy_policy(), toy_observation()
    first, again, other = (policy.sample(observation, explore=explore, seed=seed) for seed in (7, 7, 8))
    for name, value in vars(first).items():
        np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)
    assert not np.array_equal(first.actions, other.actions)


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_any_seed_that_travels_can_be_drawn_with(seed: int) -> None:
    assert toy_policy().sample(toy_observation(), explore=True, seed=seed).seed == seed


def test_without_exploration_there_is_no_density() -> None:
    policy = toy_policy()
    sample = policy.sample(toy_observation(), explore=False, seed=3)
    assert (sample.sde_index, sample.std, sample.noise_level) == (-1, 0.0, 0.0)
    assert not sample.log_prob.any()
    explored = policy.sample(toy_observation(), explore=True, seed=3)
    assert 0 <= explored.sde_index < 4
    assert explored.std > 0
    assert explored.noise_level == 0.5
    assert explored.log_prob.all()
    same = np.array_equal(sample.chain[: explored.sde_index + 1], explored.chain[: explored.sde_index + 1])
    assert same, "both start from the noise of the seed and part at the stochastic step"
    assert not np.array_equal(sample.chain[-1], explored.chain[-1])


def test_every_step_is_drawn_as_the_stochastic_one() -> None:
    policy = toy_policy()
    drawn = {policy.sample(toy_observation(), explore=True, seed=seed).sde_index for seed in range(40)}
    assert drawn == {0, 1, 2, 3}


def test_actions_are_the_end_of_the_chain_in_units_of_the_contract() -> None:
    policy = toy_policy()
    sample = policy.sample(toy_observation(), explore=True, seed=0)
    np.testing.assert_array_equal(sample.actions, sample.chain[-1] * SCALE)
    units = np.stack([BEST * SCALE])
    np.testing.assert_allclose(policy.to_model(units, HERE).numpy(), [BEST], rtol=1e-6)
    np.testing.assert_allclose(policy.to_actions(policy.to_model(units, HERE), HERE), units, rtol=1e-6)


def test_state_and_instruction_reach_the_network() -> None:
    policy, here = toy_policy(), toy_observation()
    chunk = policy.sample(here, explore=False, seed=0).actions
    moved = policy.sample(replace(here, state=here.state + 0.5), explore=False, seed=0).actions
    told = policy.sample(replace(here, instruction="do another thing"), explore=False, seed=0).actions
    assert np.abs(moved - chunk).max() > 1e-6
    assert np.abs(told - chunk).max() > 1e-6


def test_what_does_not_fit_is_refused_in_words() -> None:
    policy, here = toy_policy(), toy_observation()
    with pytest.raises(ValueError, match="state has 20 entries, the contract 21"):
        policy.sample(replace(here, state=here.state[:-1]), explore=False, seed=0)
    with pytest.raises(ValueError, match="shorten it"):
        policy.sample(replace(here, instruction="x" * 40), explore=False, seed=0)


def test_the_prefix_cache_changes_nothing_and_stays_small() -> None:
    policy, here = toy_policy(), toy_observation()
    first = policy.sample(here, explore=False, seed=0).actions
    for number in range(MAX_CACHED_PREFIXES + 5):
        policy.sample(replace(here, instruction=f"do {number}"), explore=False, seed=0)
    assert len(policy._prefixes) <= MAX_CACHED_PREFIXES
    np.testing.assert_array_equal(policy.sample(here, explore=False, seed=0).actions, first)


@pytest.fixture(scope="module")
def seeing() -> FlowPolicy:
    """A policy with a camera of 64 px beside one that its network also reads."""
    base = toy_policy()
    contract = replace(base.contract, cameras=(Camera("left", 64, 64), Camera("right", 64, 64)))
    card = replace(base.card, contract=contract, model=tiny(32, 2, 2))
    torch.manual_seed(0)
    return FlowPolicy(card, Pi0(card.model), "seeing")


def look(left: int = 0, right: int = 255) -> Observation:
    images = {"right": np.full((64, 64, 3), right, np.uint8), "left": np.full((64, 64, 3), left, np.uint8)}
    return replace(toy_observation(), images=images)


def test_images_reach_the_network_in_the_contract_s_order(seeing: FlowPolicy) -> None:
    scaled, _ = seeing.images([look()])
    assert scaled.shape == (1, 2, 3, 64, 64)
    assert (float(scaled[0, 0].max()), float(scaled[0, 1].min())) == (-1.0, 1.0)
    chunks = [seeing.sample(look(*pixels), explore=False, seed=0).actions for pixels in ((0, 255), (0, 255), (255, 0))]
    np.testing.assert_array_equal(chunks[0], chunks[1])
    assert np.abs(chunks[0] - chunks[2]).max() > 1e-7


def test_a_missing_or_misshapen_image_is_refused_with_its_name(seeing: FlowPolicy) -> None:
    left = look().images["left"]
    with pytest.raises(ValueError, match="camera 'right' is missing"):
        seeing.sample(replace(look(), images={"left": left}), explore=False, seed=0)
    with pytest.raises(ValueError, match="camera 'right' is 32x64, the contract says 64x64"):
        seeing.sample(replace(look(), images={"left": left, "right": left[:32]}), explore=False, seed=0)


def test_the_shipped_checkpoint_loads() -> None:
    import pirl_server

    folder = Path(pirl_server.__file__).parent / "checkpoints" / "pushcube-base"
    policy = FlowPolicy.load(folder)
    state = np.zeros(policy.contract.state_dim, np.float32)
    sample = policy.sample(Observation({}, state, policy.instructions[0]), explore=False, seed=0)
    assert sample.actions.shape == (policy.horizon, policy.contract.action_dim)
    assert np.isfinite(sample.actions).all()
