"""The processor of pretrained policies alone: images by slot, states, actions, and their inverses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_pretrained import DELTA, MEAN, Q01, Q99, STD, small_card, small_observation

from pirl_server.policy.normalisation import SMALLEST_STD
from pirl_server.policy.pretrained_processor import PretrainedProcessor
from pirl_server.policy.processing_spec import CameraSlot, Normalisation
from pirl_server.policy.resize import letterbox

NONE = Normalisation("none", "openpi", (), ())


def processor(prompt: Any = "pi0", **how: Any) -> PretrainedProcessor:
    return PretrainedProcessor(small_card(prompt, how), None)


def batch(seeds: range) -> dict[str, np.ndarray]:
    images = [small_observation(seed).images for seed in seeds]
    return {name: np.stack([each[name] for each in images]) for name in images[0]}


@pytest.mark.parametrize("resize", ["pil", "torch"])
@pytest.mark.parametrize("pad", [-1, -3])
def test_images_go_into_their_slots_in_the_card_s_order(resize: Any, pad: Any) -> None:
    images = batch(range(2))
    pixels, exist = processor(resize=resize, pad=pad).images(images)
    assert pixels.shape == (2, 3, 3, 14, 14)
    assert exist.tolist() == [[True, False, True]] * 2
    assert torch.equal(pixels[:, 0], letterbox(images["front"], 14, resize, pad))
    assert torch.equal(pixels[:, 2], letterbox(images["wrist"], 14, resize, -1.0))
    assert pixels[:, 0].min() == pad, "20 x 30 pixels leave bars"
    assert (pixels[:, 1] == -1.0).all(), "absent is black"


def test_the_number_of_slots_does_not_depend_on_what_is_absent() -> None:
    slots = (CameraSlot("base_0_rgb", None), CameraSlot("left", "wrist"), CameraSlot("right", "front"))
    pixels, exist = processor(slots=slots).images(batch(range(1)))
    assert pixels.shape[1] == 3
    assert exist.tolist() == [[False, True, True]]


def test_the_state_is_normalised_then_padded() -> None:
    state = np.array([[0.6, -1.2, 0.3, 0.05], [0.1, -0.2, 0.3, 0.02]], np.float32)
    found = processor().features(state)
    np.testing.assert_allclose(found, [[1.0, -1.0, 0.0, 3.0, 0.0, 0.0], [0.0] * 6], atol=1e-3)
    assert found.dtype == np.float32
    assert not found[:, 4:].any(), "padding is 0 in model range, not a normalised 0"
    far = processor().features(np.full((1, 4), 1e4, np.float32))
    assert far[0, 3] == pytest.approx((1e4 - 0.02) / (0.01 + 1e-6), rel=1e-4), "never clipped"


def test_without_statistics_the_state_goes_through() -> None:
    state = np.array([[0.6, -1.2, 0.3, 0.05]], np.float32)
    np.testing.assert_array_equal(processor(state=NONE).features(state)[:, :4], state)


def test_actions_worked_out_by_hand() -> None:
    """Quantiles: -1 is q01, 1 is q99, beyond goes beyond; relative ones start from the state of the observation."""
    x = torch.tensor([[[-1.0, 0.0, 1.0, 7.0, 7.0], [3.0, 1.0, -1.0, 7.0, 7.0]]])
    state = np.array([[0.5, 2.0, 9.0, 9.0]], np.float32)
    found = processor().to_actions(x, state)
    np.testing.assert_allclose(found, [[[0.4, 2.05, 0.04], [0.8, 2.3, 0.0]]], atol=1e-5)
    assert found.dtype == np.float32
    absolute = processor(delta=()).to_actions(x, state)
    np.testing.assert_allclose(absolute, [[[-0.1, 0.05, 0.04], [0.3, 0.3, 0.0]]], atol=1e-5)


@pytest.mark.parametrize("scheme", ["zscore", "quantile", "none"])
@pytest.mark.parametrize("convention", ["openpi", "lerobot"])
@pytest.mark.parametrize("delta", [(), DELTA])
def test_to_model_inverts_to_actions(scheme: Any, convention: Any, delta: Any) -> None:
    first, second = {"zscore": (MEAN[:3], STD[:3]), "quantile": (Q01, Q99), "none": ((), ())}[scheme]
    subject = processor(action=Normalisation(scheme, convention, first, second), delta=delta)
    draw = np.random.default_rng(0)
    actions, state = (draw.normal(size=shape).astype(np.float32) for shape in ((2, 3, 3), (2, 4)))
    x = subject.to_model(actions, state)
    assert x.shape == (2, 3, 5)
    assert x.dtype == torch.float32
    assert not x[..., 3:].any()
    np.testing.assert_allclose(subject.to_actions(x, state), actions, atol=1e-5)
    x[..., 3:] = 9.0
    np.testing.assert_allclose(subject.to_actions(x, state), actions, atol=1e-5)


def test_each_row_starts_from_its_own_state() -> None:
    x, state = torch.zeros(2, 3, 5), np.array([[0.0] * 4, [1.0] * 4], np.float32)
    found = processor().to_actions(x, state)
    np.testing.assert_allclose(found[1] - found[0], [[1.0, 1.0, 0.0]] * 3, atol=1e-6)


def test_what_is_given_is_left_as_it_was() -> None:
    x, state, actions = torch.ones(1, 3, 5), np.ones((1, 4), np.float32), np.ones((1, 3, 3), np.float32)
    processor().to_actions(x, state)
    processor().to_model(actions, state)
    assert (x == 1).all()
    assert (state == 1).all()
    assert (actions == 1).all()


@pytest.mark.parametrize(("prompt", "holds"), [("pi0", False), ("pi05", True), ("pi05_without_state", False)])
def test_only_pi05_s_prompt_depends_on_the_state(prompt: Any, holds: bool) -> None:
    subject = processor(prompt)
    assert subject.state_in_prompt == holds
    states = np.array([MEAN, np.array(MEAN) + np.array(STD)], np.float32)
    ids, mask = subject.prompts(["push_it"] * 2, states)
    assert bool((ids[0] != ids[1]).any()) == holds
    if holds:
        texts = [bytes(row[keep][1:].tolist()).decode() for row, keep in zip(ids, mask)]
        middle = texts[0].removeprefix("Task: push it, State: ").removesuffix(";\nAction: ").split()
        assert len(middle) == 4, "the real joints, without padding"
        assert all(abs(int(each) - 128) <= 1 for each in middle)
        assert texts[1] == "Task: push it, State: 255 255 255 255;\nAction: "


def test_a_tokenizer_file_needs_a_folder() -> None:
    card = small_card()
    assert card.processing is not None
    wanted = replace(card.processing.tokenizer, kind="sentencepiece", sha256="0" * 64)
    with pytest.raises(ValueError, match="load the policy from its checkpoint folder"):
        PretrainedProcessor(replace(card, processing=replace(card.processing, tokenizer=wanted)), None)


def test_the_smallest_std_that_passes_still_gives_finite_numbers() -> None:
    subject = processor(state=Normalisation("zscore", "lerobot", MEAN, (SMALLEST_STD,) * 4))
    assert np.isfinite(subject.features(np.full((1, 4), 100.0, np.float32))).all()
