"""Chunks that go on from the one being played: the same first actions, a smooth seam, an honest density."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from forked import HORIZON, LONGEST, forked_policy
from small_pretrained import small_observation, small_policy
from toy_arm import toy_observation, toy_policy

from pirl_contract import Observation, PreviousChunk
from pirl_server.algorithm.flow_sde import transition
from pirl_server.algorithm.hybrid_sampler import step_of_chain, transition_log_prob
from pirl_server.algorithm.rtc import resting_transition, token_times
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processor import Array
from pirl_server.policy.served_policy import PolicyRequest, PolicySample

METHODS = ("guided", "prefix")
SEAM_BOUND = 0.8
"""what the step over the seam may be in units of the policy's action std, for 19 of 20 chunks"""


def on(policy: FlowPolicy, asks: list[PolicyRequest]) -> list[PolicySample]:
    answers = policy.sample_batch(asks)
    assert all(isinstance(answer, PolicySample) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, PolicySample)]


def known(actions: Array, delay: int, method: str) -> PreviousChunk:
    return PreviousChunk(actions, delay, method, "c1")  # type: ignore[arg-type]


def policies() -> list[tuple[FlowPolicy, Observation]]:
    small = [(small_policy(prompt, prefix_delay=2), small_observation()) for prompt in ("pi0", "pi05", "smolvla")]
    return [(toy_policy(horizon=6, prefix_delay=4), toy_observation()), *small]


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_first_actions_are_the_very_ones_that_were_asked_with(method: str, explore: bool) -> None:
    """Whatever processing lies between: fixed scales, or quantiles and actions relative to the state."""
    for policy, observation in policies():
        random = np.random.default_rng(0)
        for delay in range(policy.horizon):
            past = random.normal(size=(policy.horizon - (delay == 1), policy.contract.action_dim)).astype(np.float32)
            (sample,) = on(policy, [PolicyRequest(observation, explore, delay, known(past, delay, method))])
            assert sample.continued == delay
            np.testing.assert_array_equal(sample.actions[:delay], past[:delay])
            assert np.isfinite(sample.actions).all()
            drawn = policy.to_actions(torch.from_numpy(sample.chain[-1][None]), observation.state[None])[0]
            np.testing.assert_array_equal(sample.actions[delay:], drawn[delay:])


def test_a_continuation_of_nothing_is_a_chunk_that_begins_anew_bit_for_bit() -> None:
    for policy, observation in policies():
        nothing = np.zeros((0, policy.contract.action_dim), np.float32)
        for explore in (False, True):
            asks = [PolicyRequest(observation, explore, 3, known(nothing, 0, method)) for method in METHODS]
            for sample in [on(policy, [ask])[0] for ask in asks]:
                for name, value in vars(on(policy, [PolicyRequest(observation, explore, 3)])[0]).items():
                    np.testing.assert_array_equal(getattr(sample, name), value, err_msg=name)


@pytest.mark.parametrize("delay", [1, 2, LONGEST])
def test_the_seam_is_smooth_where_a_naive_switch_tears(delay: int) -> None:
    policy, observation, rows = forked_policy(), toy_observation(), 60
    old = np.stack(
        [sample.actions for sample in on(policy, [PolicyRequest(observation, False, seed) for seed in range(rows)])]
    )
    playing, std = old[:, 2:], old.std(axis=(0, 1))

    def seam(method: str) -> float:
        going_on = [known(each.copy(), delay, method) if method else None for each in playing]
        asks = [PolicyRequest(observation, False, 1000 + row, each) for row, each in enumerate(going_on)]
        new = np.stack([sample.actions for sample in on(policy, asks)])
        step = np.abs(new[:, delay] - playing[:, delay - 1]) / std
        return float(np.quantile(step.max(axis=1), 0.95))

    assert seam("guided") < SEAM_BOUND
    assert seam("prefix") < SEAM_BOUND
    assert seam("") > 2 * SEAM_BOUND, "negative control: a new chunk on its own"


def test_rows_do_not_depend_on_each_other() -> None:
    policy, observation = toy_policy(horizon=6, prefix_delay=3), toy_observation()
    past = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32) * 0.1
    rows = [None, known(past, 2, "guided"), known(past, 3, "prefix"), known(past[:3], 1, "guided")]
    asks = [PolicyRequest(observation, True, seed, each) for seed, each in enumerate(rows)]
    for ask, sample in zip(asks, on(policy, asks)):
        (alone,) = on(policy, [ask])
        np.testing.assert_allclose(sample.chain, alone.chain, atol=2e-6)
        assert (sample.continued, sample.altered) == (alone.continued, alone.altered)


def test_what_cannot_be_continued_is_refused_alone_and_in_words() -> None:
    policy, observation = toy_policy(horizon=4), toy_observation()
    two, torn = np.zeros((2, 2), np.float32), np.full((2, 2), np.nan, np.float32)
    refusals = {
        "use: guided": known(two, 1, "prefix"),
        "5 actions of 2: at most 4 of 2": known(np.zeros((5, 2), np.float32), 1, "guided"),
        "2 actions of 3: at most 4 of 2": known(np.zeros((2, 3), np.float32), 1, "guided"),
        "delay 4 must be below the horizon": known(np.zeros((4, 2), np.float32), 4, "guided"),
        "not finite": known(torn, 1, "guided"),
    }
    good = PolicyRequest(observation, False, 0, known(two, 1, "guided"))
    answers = policy.sample_batch([*(PolicyRequest(observation, False, 0, each) for each in refusals.values()), good])
    for text, answer in zip(refusals, answers):
        assert isinstance(answer, ValueError)
        assert text in str(answer)
    assert isinstance(answers[-1], PolicySample)


@pytest.mark.parametrize(
    ("method", "delay", "altered"),
    [("guided", 0, HORIZON), ("guided", 2, HORIZON), ("prefix", 0, 0), ("prefix", 3, 3), ("prefix", 6, HORIZON)],
)
def test_a_sample_says_how_much_of_it_is_not_the_policys_own(method: str, delay: int, altered: int) -> None:
    """A delay beyond the longest of the training is answered by guidance: a moving arm needs an answer."""
    policy, past = toy_policy(horizon=HORIZON, prefix_delay=LONGEST), np.zeros((7, 2), np.float32)
    (sample,) = on(policy, [PolicyRequest(toy_observation(), True, 0, known(past, delay, method))])
    assert (sample.continued, sample.altered) == (delay, altered)
    assert 0 <= sample.sde_index < 8
    assert sample.std > 0


def log_ratio(policy: FlowPolicy, sample: PolicySample, observation: Observation) -> Array:
    """Of a learner's density to the logged one [H, A]. Given actions are those that the chain never moves."""
    chain, index = torch.from_numpy(sample.chain)[None], torch.tensor([sample.sde_index])
    given = (chain == chain[:, :1]).all(dim=3).all(dim=1)
    features, prefix = torch.from_numpy(policy.features(observation.state[None])), policy.prefixes([observation])

    def velocity(x: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        return policy.model.velocity(prefix, features, x, token_times(t_B, given))

    step = resting_transition(partial(transition, noise_level=sample.noise_level), given)
    with torch.no_grad():
        new = transition_log_prob(velocity, *step_of_chain(chain, index), index, policy.card.denoise_steps, step)
    return (new[0] - torch.from_numpy(sample.log_prob)).numpy()


@pytest.mark.parametrize("prompt", ["pi0", "pi05"])
def test_the_density_of_a_prefix_conditioned_chunk_is_exact(prompt: str) -> None:
    """A learner that conditions on the same prefix starts at a ratio of 1; the given actions have no density."""
    policy, observation = small_policy(prompt, prefix_delay=2), small_observation()  # type: ignore[arg-type]
    (old,) = on(policy, [PolicyRequest(observation, False, 0)])
    for seed in range(8):
        (sample,) = on(policy, [PolicyRequest(observation, True, seed, known(old.actions, 2, "prefix"))])
        assert not sample.log_prob[:2].any()
        assert sample.log_prob[2:].all()
        np.testing.assert_allclose(log_ratio(policy, sample, observation), 0.0, atol=1e-4)


def test_the_density_of_a_guided_chunk_is_not_the_policys() -> None:
    """Why all of it counts as altered; drawn anew, it is."""
    policy, observation = small_policy(), small_observation()
    (old,) = on(policy, [PolicyRequest(observation, False, 0)])
    (plain,) = on(policy, [PolicyRequest(observation, True, 5)])
    (sample,) = on(policy, [PolicyRequest(observation, True, 5, known(old.actions, 1, "guided"))])
    assert float(np.abs(log_ratio(policy, plain, observation)).max()) < 1e-4
    assert float(np.abs(log_ratio(policy, sample, observation)).max()) > 0.1


def test_a_card_that_knows_no_prefix_reads_as_it_did() -> None:
    card = toy_policy(horizon=4).card
    assert "prefix_delay" not in card.to_json()
    assert ModelCard.from_json(card.to_json()).prefix_delay == 0
    taught = replace(card, prefix_delay=3)
    assert ModelCard.from_json(taught.to_json()) == taught
    with pytest.raises(ValueError, match="prefix_delay 4 must be 0 to 3"):
        ModelCard.from_json(replace(card, prefix_delay=4).to_json())
    assert toy_policy(horizon=4).continuations == ("guided",)
    assert toy_policy(horizon=4, prefix_delay=3).continuations == METHODS
