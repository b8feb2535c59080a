"""A pretrained policy from observation to chunk, all families and prompt forms, against a second way there.

The oracle prepares images with PIL, prompts with an f-string and statistics with numpy, then walks the Euler steps over
`FlowModel.velocity`: of the code under test it shares the network alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_pretrained import DELTA, MEAN, Q01, Q99, STD, small_card, small_observation, small_policy, small_weights

from pirl_contract import ActionChunk, Observation, Policy, StepOutcome
from pirl_contract.conformance import PolicyConformance
from pirl_server.episodes.store import EpisodeStore
from pirl_server.model.flow_model import FlowModel
from pirl_server.policy.checkpoint import WEIGHTS, load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.local_policy import LocalPolicy
from pirl_server.serving.episode_builder import EpisodeEnd, EpisodeStart
from pirl_server.serving.recorder import Recorder

PROMPTS = pytest.mark.parametrize("prompt", ["pi0", "pi05", "pi05_without_state", "smolvla"])
EPSILON = 1e-6
CLOSE = 1e-5


class TestPretrainedPolicy(PolicyConformance):
    def make_policy(self) -> Policy:
        return LocalPolicy(small_policy("pi05"), seed=0)

    def make_observation(self) -> Observation:
        return small_observation()


def model_images(observation: Observation) -> torch.Tensor:
    """Slots: front, absent, wrist. 20 x 30 pixels become 9 x 14 with two rows above and three below."""
    front = Image.new("RGB", (14, 14))
    resized = Image.fromarray(observation.images["front"]).resize((14, 9), Image.Resampling.BILINEAR)
    front.paste(resized, (0, 2))
    slots = [np.asarray(front), np.zeros((14, 14, 3), np.uint8), observation.images["wrist"]]
    return torch.tensor(np.stack(slots) / 127.5 - 1.0, dtype=torch.float32).permute(0, 3, 1, 2)[None]


def model_prompt(prompt: str, state_S: np.ndarray) -> torch.Tensor:
    if prompt == "smolvla":
        return torch.tensor([[*b"push it\n"]])
    if prompt != "pi05":
        return torch.tensor([[257, *b"push it", 259]])
    numbers = " ".join(str(min(255, int(np.floor((each + 1.0) * 128.0)))) for each in state_S)
    return torch.tensor([[257, *f"Task: push it, State: {numbers};\nAction: ".encode()]])


def expected_chunk(
    model: FlowModel, prompt: str, observation: Observation, noise_HA: np.ndarray, steps: int
) -> np.ndarray:
    """[H, D] in the contract's units."""
    state = (observation.state - np.array(MEAN)) / (np.array(STD) + EPSILON)
    padded = torch.tensor(np.concatenate([state, np.zeros(2)]), dtype=torch.float32)[None]
    tokens = model_prompt(prompt, state)
    exist = torch.tensor([[True, False, True]])
    with torch.no_grad():
        prefix = model.encode_prefix(
            model_images(observation), exist, tokens, torch.ones_like(tokens, dtype=torch.bool)
        )
        x = torch.from_numpy(noise_HA)[None]
        for step in range(steps):
            x = x - model.velocity(prefix, padded, x, torch.tensor([1.0 - step / steps])) / steps
    low, high = np.array(Q01), np.array(Q99)
    actions = (x[0, :, :3].numpy() + 1.0) / 2.0 * (high - low + EPSILON) + low
    return actions + np.where(DELTA, observation.state[[0, 1, 2]], 0.0)


@PROMPTS
def test_a_chunk_is_what_a_second_way_gives(prompt: Any) -> None:
    policy, observation = small_policy(prompt), small_observation()
    sample = policy.sample(observation, explore=False, seed=3)
    assert sample.actions.shape == (3, 3)
    assert sample.actions.dtype == np.float32
    assert sample.chain.shape == (5, 3, 5), "the chain is in the model's space, wider than the robot's"
    assert sample.log_prob.shape == (3, 5)
    expected = expected_chunk(policy.model, prompt, observation, sample.chain[0], policy.card.denoise_steps)
    np.testing.assert_allclose(sample.actions, expected, atol=CLOSE)


WRONG: dict[str, dict[str, Any]] = {
    "resize": {"resize": "torch"},
    "bars": {"pad": -3},
    "delta": {"delta": ()},
    "cleaning": {"clean_prompt": False},
}


@pytest.mark.parametrize("what", WRONG)
def test_each_wrong_guess_changes_the_chunk_and_raises_nothing(what: str) -> None:
    """Negative control, and the reason why the card says all of it."""
    policy, observation = small_policy("pi05", WRONG[what]), small_observation()
    sample = policy.sample(observation, explore=False, seed=3)
    expected = expected_chunk(policy.model, "pi05", observation, sample.chain[0], 4)
    assert np.abs(sample.actions - expected).max() > 100 * CLOSE


@PROMPTS
@pytest.mark.parametrize("explore", [False, True])
def test_the_state_reaches_the_network_where_it_should(prompt: Any, explore: bool) -> None:
    policy, here = small_policy(prompt, {"delta": ()}), small_observation()
    moved = replace(here, state=here.state + np.array([0.3, 0.0, 0.0, 0.0], np.float32))
    chunks = [policy.sample(each, explore=explore, seed=0).actions for each in (here, moved)]
    assert (np.abs(chunks[0] - chunks[1]).max() > 1e-6) == (prompt != "pi05_without_state")


@PROMPTS
def test_explored_samples_carry_their_density(prompt: Any) -> None:
    sample = small_policy(prompt).sample(small_observation(), explore=True, seed=1)
    assert sample.std > 0
    assert sample.log_prob.all()


def test_a_batch_is_its_rows(tmp_path: Path) -> None:
    """Prompts of different length, states of their own, one camera absent; float32 adds up in another order."""
    policy = small_policy("pi05")
    observations = [small_observation(seed, instruction="push" * (1 + seed)) for seed in range(3)]
    state = np.stack([each.state for each in observations])
    generator = torch.Generator().manual_seed(0)
    noise, other = torch.randn(2, 3, 3, 5, generator=generator)
    with torch.no_grad():
        together = policy.draw(policy.features(state), policy.prefixes(observations), noise, other, torch.arange(3))
        for row, each in enumerate(observations):
            one = slice(row, row + 1)
            alone = policy.draw(
                policy.features(state[one]), policy.prefix(each), noise[one], other[one], torch.tensor([row])
            )
            np.testing.assert_allclose(together.chain[one], alone.chain, atol=5 * CLOSE)
            others = together.chain[torch.arange(3) != row]
            assert (others - alone.chain).abs().amax(dim=(1, 2, 3)).min() > 1000 * CLOSE


@PROMPTS
def test_from_disk_it_is_the_same_policy(prompt: Any, tmp_path: Path) -> None:
    policy = small_policy(prompt)
    save_checkpoint(tmp_path, policy.card, policy.model.state_dict())
    loaded = FlowPolicy.load(tmp_path)
    chunks = [each.sample(small_observation(), explore=True, seed=5).actions for each in (policy, loaded)]
    np.testing.assert_array_equal(*chunks)


def test_weights_keep_their_stored_type_and_are_not_copied(tmp_path: Path) -> None:
    card = small_card("pi05")
    stored = {name: each.bfloat16() for name, each in small_weights(card).state_dict().items()}
    stored["action_in_proj.weight"] = stored["action_in_proj.weight"].float()
    save_checkpoint(tmp_path, card, stored)
    before = (tmp_path / WEIGHTS).read_bytes()
    model = FlowPolicy.load(tmp_path).model
    found = model.state_dict()
    assert {name: each.dtype for name, each in found.items()} == {name: each.dtype for name, each in stored.items()}
    assert all(torch.equal(found[name], each) for name, each in stored.items())
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in model.parameters())
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert (tmp_path / WEIGHTS).read_bytes() == before, "training in place does not write through to the file"
    assert all(torch.equal(load_checkpoint(tmp_path)[1][name], each) for name, each in stored.items())


def test_a_device_that_is_not_there_is_said(tmp_path: Path) -> None:
    policy = small_policy()
    save_checkpoint(tmp_path, policy.card, policy.model.state_dict())
    assert FlowPolicy.load(tmp_path, device="cpu").device == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'nonsense' can't be used"):
        FlowPolicy.load(tmp_path, device="nonsense")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@PROMPTS
def test_another_device_gives_the_same_chunk(prompt: Any, tmp_path: Path) -> None:
    policy = small_policy(prompt)
    save_checkpoint(tmp_path, policy.card, policy.model.state_dict())
    there = FlowPolicy.load(tmp_path, device="cuda")
    assert there.device.type == "cuda"
    chunks = [each.sample(small_observation(), explore=True, seed=5).actions for each in (policy, there)]
    np.testing.assert_allclose(*chunks, atol=1e-3)


def test_the_prefix_is_kept_only_where_the_state_is_not_in_it() -> None:
    """A camera-less pi0.5 with its state as text must encode each observation anew."""
    card = small_card("pi05", {"slots": ()})
    card = replace(card, model=replace(card.model, vision=None))
    policy = FlowPolicy(card, small_weights(card), "blind")
    here = small_observation()
    moved = replace(here, state=here.state + 0.3)
    assert not torch.equal(policy.prefix(here).keys, policy.prefix(moved).keys)
    assert not policy._prefixes


def test_an_episode_keeps_the_chain_in_the_model_s_width(tmp_path: Path) -> None:
    """From a served sample to disk and back: what a later job needs to recompute the density."""
    served, here = small_policy(), small_observation()
    sample = served.sample(here, explore=True, seed=2)
    recorder = Recorder(EpisodeStore(tmp_path))
    episode = recorder.start(EpisodeStart("arm", served.contract, "push_it", served.name, 2, True, {}))
    chunk = ActionChunk(sample.actions, 0.05, "c0", served.version, sample.seed, 2)
    episode.add_call(here, sample, chunk, 1.0)
    episode.add_outcomes([StepOutcome("c0", 0, sample.actions[0], here.state)])
    receipt = recorder.end(episode.id, EpisodeEnd(True, "operator", "success"))
    recorder.close()
    assert receipt.steps == 1
    calls = EpisodeStore(tmp_path).open(episode.id).calls
    np.testing.assert_array_equal(calls.chain, sample.chain[None])
    np.testing.assert_array_equal(calls.log_prob, sample.log_prob[None])
    np.testing.assert_array_equal(calls.chunk, sample.actions[None])
    x = torch.from_numpy(calls.chain[:, -1])
    np.testing.assert_array_equal(served.to_actions(x, calls.state), calls.chunk)
