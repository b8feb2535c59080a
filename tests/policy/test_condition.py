"""Conditioning on better actions: what the prompt says, and what guidance makes of the two branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_pretrained import small_observation, small_policy
from toy_arm import INSTRUCTIONS, spoken_policy, toy_card, toy_observation, toy_policy

from pirl_contract import Observation, PreviousChunk
from pirl_server.policy.condition import BETTER, WORSE, ConditionedProcessor, conditioned, without_condition
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.served_policy import PolicyRequest, PolicySample

Make = Callable[..., FlowPolicy]
KINDS: dict[str, tuple[Make, Callable[[int], Observation]]] = {
    "state": (toy_policy, toy_observation),
    "pi0.5 with images": (lambda **changes: small_policy("pi05", **changes), small_observation),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> tuple[Make, Callable[[int], Observation]]:
    return KINDS[request.param]


def drawn(policy: FlowPolicy, *observations: Observation, **settings: PreviousChunk) -> list[PolicySample]:
    requests = [PolicyRequest(each, False, 5 + row, **settings) for row, each in enumerate(observations)]
    found = policy.sample_batch(requests)
    assert all(isinstance(each, PolicySample) for each in found), found
    return [each for each in found if isinstance(each, PolicySample)]


def asking(observation: Observation, words: str) -> Observation:
    return replace(observation, instruction=observation.instruction + words)


def test_guidance_of_one_is_plain_conditioning_bitwise(kind: tuple[Make, Callable[[int], Observation]]) -> None:
    make, observe = kind
    seen = [observe(row) for row in range(3)]
    found = drawn(make(guidance=1.0), *seen)
    worded = drawn(make(), *(asking(each, BETTER) for each in seen))
    assert all(np.array_equal(mine.chain, other.chain) for mine, other in zip(found, worded))
    bare = drawn(make(), *seen)
    assert all(not np.array_equal(mine.chain, other.chain) for mine, other in zip(found, bare))


def velocities(policy: FlowPolicy, observation: Observation, x: torch.Tensor) -> torch.Tensor:
    state = torch.from_numpy(policy.features(observation.state[None]))
    with torch.no_grad():
        return policy.denoiser(policy.prefixes([observation]), state)(x, torch.ones(1))


@pytest.mark.parametrize("guidance", [0.5, 2.0, 7.5])
def test_guidance_is_a_line_through_both_branches(
    kind: tuple[Make, Callable[[int], Observation]], guidance: float
) -> None:
    make, observe = kind
    seen = observe(0)
    policy = make()
    x = torch.randn(1, policy.horizon, policy.card.model.action_dim, generator=torch.Generator().manual_seed(1))
    plain, better = velocities(policy, seen, x), velocities(policy, asking(seen, BETTER), x)
    assert float((better - plain).abs().max()) > 1e-3
    found = velocities(make(guidance=guidance), seen, x)
    torch.testing.assert_close(found, plain + guidance * (better - plain), atol=1e-5, rtol=1e-4)


def test_guided_rows_do_not_depend_on_each_other(kind: tuple[Make, Callable[[int], Observation]]) -> None:
    make, observe = kind
    policy = make(guidance=1.5)
    seen = [asking(observe(row), "" if row % 2 else " now") for row in range(5)]
    together = drawn(policy, *seen)
    for row, each in enumerate(seen):
        (alone,) = policy.sample_batch([PolicyRequest(each, False, 5 + row)])
        assert isinstance(alone, PolicySample)
        np.testing.assert_allclose(together[row].chain, alone.chain, atol=2e-4, rtol=1e-3)
    same = drawn(policy, *[replace(seen[0], instruction=seen[1].instruction), seen[1]])
    np.testing.assert_allclose(same[1].chain, drawn(policy, seen[0], seen[1])[1].chain, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["guided", "prefix"])
def test_a_guided_policy_continues_a_chunk(method: str) -> None:
    policy = toy_policy(horizon=6, prefix_delay=3, guidance=2.0)
    previous = np.linspace(-0.05, 0.05, 8).reshape(4, 2).astype(np.float32)
    (found,) = drawn(policy, toy_observation(), continuation=PreviousChunk(previous, 2, method, "c"))  # type: ignore[arg-type]
    assert np.array_equal(found.actions[:2], previous[:2])


def test_a_prompt_asks_for_the_better_actions_unless_it_says_which() -> None:
    processor = toy_policy(guidance=1.0).processor
    assert isinstance(processor, ConditionedProcessor)
    plain = without_condition(processor)
    assert without_condition(plain) is plain
    state = np.zeros((1, 21), np.float32)
    for asked, said in (
        (INSTRUCTIONS[0], INSTRUCTIONS[0] + BETTER),
        (INSTRUCTIONS[0] + WORSE, INSTRUCTIONS[0] + WORSE),
        (conditioned(INSTRUCTIONS[0], better=True), INSTRUCTIONS[0] + BETTER),
    ):
        assert torch.equal(processor.prompts([asked], state)[0], plain.prompts([said], state)[0])
    assert not torch.equal(*(plain.prompts([INSTRUCTIONS[0] + each], state)[0] for each in (BETTER, WORSE)))
    assert not spoken_policy().guided


def test_a_card_without_conditioning_reads_as_it_did() -> None:
    card = toy_card()
    assert "guidance" not in card.to_json()
    assert ModelCard.from_json(card.to_json()).guidance is None
    taught = replace(card, guidance=1.5)
    assert ModelCard.from_json(taught.to_json()) == taught
    with pytest.raises(ValueError, match=r"guidance -1\.0 must be positive"):
        ModelCard.from_json(replace(card, guidance=-1.0).to_json())
