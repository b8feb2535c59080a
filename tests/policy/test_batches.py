"""Rows of one forward pass are what each would be alone: other rows, their number and padding change nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from small_pretrained import small_observation, small_policy
from toy_arm import INSTRUCTIONS, spoken_policy, toy_observation, toy_policy

from pirl_contract import Camera, Observation, PreviousChunk
from pirl_server.algorithm.hybrid_sampler import step_of_chain, transition_log_prob
from pirl_server.model import families
from pirl_server.model.pi0.config import tiny, tiny_state
from pirl_server.model.smolvla import config as smolvla
from pirl_server.policy.flow_policy import FlowPolicy, pad_to_batch_size
from pirl_server.policy.processing_spec import PromptFormat
from pirl_server.policy.served_policy import BATCH_SIZES, PolicyRequest, PolicySample, one_by_one

CLOSE = 2e-5


def tiny_policy(family: str, cameras: int = 0) -> FlowPolicy:
    """The preset of two million parameters with open gates."""
    base = toy_policy()
    contract = replace(base.contract, cameras=tuple(Camera(f"c{index}", 64, 64) for index in range(cameras)))
    small = smolvla.tiny if cameras else smolvla.tiny_state
    config = small(32, 2) if family == "smolvla" else replace((tiny if cameras else tiny_state)(32, 2), family=family)  # type: ignore[arg-type]
    card = replace(base.card, contract=contract, model=config, family=family)
    torch.manual_seed(0)
    model = families.build(card.model)
    for name, parameter in model.named_parameters():
        if ".dense." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return FlowPolicy(card, model, "tiny")


def calm_policy(prompt: PromptFormat) -> FlowPolicy:
    """Half the weights of `small_policy`, which amplifies the last bit of float32 beyond what is compared here."""
    policy = small_policy(prompt)
    for parameter in policy.model.parameters():
        parameter.data *= 0.5
    return policy


def tiny_observation(seed: int, cameras: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    images = {f"c{index}": rng.integers(0, 256, (64, 64, 3), np.uint8) for index in range(cameras)}
    return replace(toy_observation(seed), images=images)


POLICIES: dict[str, tuple[Callable[[], FlowPolicy], Callable[[int], Observation]]] = {
    "pi0 tiny": (partial(tiny_policy, "pi0"), tiny_observation),
    "pi0.5 tiny": (partial(tiny_policy, "pi05"), tiny_observation),
    "pi0 tiny with cameras": (partial(tiny_policy, "pi0", 2), partial(tiny_observation, cameras=2)),
    "SmolVLA tiny": (partial(tiny_policy, "smolvla"), tiny_observation),
    "SmolVLA tiny with cameras": (partial(tiny_policy, "smolvla", 2), partial(tiny_observation, cameras=2)),
    "SmolVLA with an absent camera": (partial(calm_policy, "smolvla"), small_observation),
    "pi0 with an absent camera": (partial(calm_policy, "pi0"), small_observation),
    "pi0.5 with an absent camera and its state in the prompt": (partial(calm_policy, "pi05"), small_observation),
    "state in the prompt, no camera": (spoken_policy, toy_observation),
}


@pytest.fixture(scope="module", params=list(POLICIES))
def world(request: pytest.FixtureRequest) -> tuple[FlowPolicy, Callable[[int], Observation]]:
    make, observe = POLICIES[request.param]
    return make(), observe


def asks_of(observe: Callable[[int], Observation], rows: int) -> list[PolicyRequest]:
    """Exploring and deterministic rows mixed, with instructions of several lengths."""
    sentences = (*INSTRUCTIONS, "do")
    told = [replace(observe(row), instruction=sentences[row % len(sentences)]) for row in range(rows)]
    return [PolicyRequest(observation, explore=row % 3 != 1, seed=100 + row) for row, observation in enumerate(told)]


def distance(answer: PolicySample | ValueError, alone: PolicySample) -> float:
    assert isinstance(answer, PolicySample), answer
    assert (answer.sde_index, answer.seed, answer.noise_level) == (alone.sde_index, alone.seed, alone.noise_level)
    pairs = [(getattr(answer, name), getattr(alone, name)) for name in ("actions", "chain", "log_prob", "std")]
    return max(float(np.abs(mine - other).max() / (1.0 + np.abs(other).max())) for mine, other in pairs)


def test_rows_equal_the_form_of_one_row(world: tuple[FlowPolicy, Callable[[int], Observation]]) -> None:
    policy, observe = world
    asks = asks_of(observe, 8)
    alone = [policy.sample(ask.observation, explore=ask.explore, seed=ask.seed) for ask in asks]
    for rows in range(1, 9):
        answers = policy.sample_batch(asks[:rows])
        assert len(answers) == rows
        assert max(distance(answer, one) for answer, one in zip(answers, alone)) < CLOSE
    assert {one.sde_index for one in alone} > {-1}
    swapped = policy.sample_batch([asks[1], asks[0]])
    assert not np.allclose(swapped[0].chain, alone[0].chain, atol=1e-2)  # type: ignore[union-attr]


def test_each_part_of_a_row_is_its_own(world: tuple[FlowPolicy, Callable[[int], Observation]]) -> None:
    """The control of the test above: a row that takes another's state, images, instruction or noise is far away."""
    policy, observe = world
    first, other = asks_of(observe, 2)
    first = replace(first, explore=other.explore)
    (alone,) = policy.sample_batch([first])
    assert isinstance(alone, PolicySample)
    seen, far = first.observation, other.observation
    mixed = [replace(seen, instruction=far.instruction)]
    if policy.card.model.family == "pi0" or policy.processor.state_in_prompt:
        mixed.append(replace(seen, state=far.state))
    if seen.images and policy.card.model.vision is not None:
        mixed.append(replace(seen, images=far.images))
    strangers = [replace(first, observation=each) for each in mixed] + [replace(first, seed=other.seed)]
    for answer in policy.sample_batch(strangers):
        assert isinstance(answer, PolicySample)
        assert np.abs(answer.chain - alone.chain).max() > 10 * CLOSE


def test_the_density_of_a_row_is_that_of_the_chain_it_stores(
    world: tuple[FlowPolicy, Callable[[int], Observation]],
) -> None:
    policy, observe = world
    asks = [replace(ask, explore=True) for ask in asks_of(observe, 8)]
    for ask, sample in zip(asks, policy.sample_batch(asks)):
        assert isinstance(sample, PolicySample)
        again = recomputed(policy, ask.observation, sample)
        ratio = np.exp(again - sample.log_prob)
        np.testing.assert_allclose(ratio, 1.0, atol=1e-5)
        assert np.abs(again).min() > 0


@torch.no_grad()
def recomputed(policy: FlowPolicy, observation: Observation, sample: PolicySample) -> np.ndarray:
    """Log-prob [H, A] by `Pi0.velocity`, one row, as a later job computes it."""
    chain, index = torch.from_numpy(sample.chain)[None], torch.tensor([sample.sde_index])
    state, prefix = torch.from_numpy(policy.features(observation.state[None])), policy.prefix(observation)
    x, x_next = step_of_chain(chain, index)
    velocity = partial(policy.model.velocity, prefix, state)
    steps = policy.card.denoise_steps
    return transition_log_prob(velocity, x, x_next, index, steps, policy.transition)[0].numpy()


def test_a_refused_row_leaves_its_reason_and_the_others_as_they_were() -> None:
    policy = tiny_policy("pi0", 2)
    asks = asks_of(partial(tiny_observation, cameras=2), 4)
    alone = [policy.sample(ask.observation, explore=ask.explore, seed=ask.seed) for ask in asks]
    asks[1] = replace(asks[1], observation=replace(asks[1].observation, images={}))
    asks[2] = replace(asks[2], observation=replace(asks[2].observation, instruction="x" * 300))
    answers = policy.sample_batch(asks)
    for row, words in ((1, "camera 'c0' is missing"), (2, "shorten it")):
        assert isinstance(answers[row], ValueError)
        assert words in str(answers[row])
    assert max(distance(answers[row], alone[row]) for row in (0, 3)) < CLOSE


def test_a_policy_by_single_rows_refuses_a_continuation() -> None:
    policy, (ask,) = toy_policy(), asks_of(toy_observation, 1)
    continued = replace(ask, continuation=PreviousChunk(np.zeros((1, 2), np.float32), 1, "prefix"))
    answers = one_by_one(policy, [ask, continued])
    assert isinstance(answers[0], PolicySample)
    assert isinstance(answers[1], ValueError)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (16, 16), (17, 17)])
def test_a_batch_is_filled_up_to_a_size_that_was_warmed(rows: int, size: int) -> None:
    asks = asks_of(toy_observation, rows)
    filled = pad_to_batch_size(asks)
    assert (len(filled), filled[:rows]) == (size, asks)
    assert all(ask is asks[-1] for ask in filled[rows:])


def test_padding_changes_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an accelerator does, done on the CPU."""
    policy, asks = toy_policy(), asks_of(toy_observation, 5)
    plain = policy.sample_batch(asks)
    drawn: list[int] = []
    draw = policy.draw

    def counted(features: np.ndarray, *rest: object) -> object:
        drawn.append(len(features))
        return draw(features, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(policy, "draw", counted)
    padded = policy._draw_rows(pad_to_batch_size(asks))[: len(asks)]
    assert drawn == [8]
    assert 8 in BATCH_SIZES
    assert max(distance(one, other) for one, other in zip(padded, only_samples(plain))) < CLOSE


def only_samples(answers: Sequence[PolicySample | ValueError]) -> list[PolicySample]:
    return [answer for answer in answers if isinstance(answer, PolicySample)]
