"""Overrides by name, and which reset seeds belong to whom."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig, override
from pirl_server.training.seeds import (
    DEMONSTRATION,
    EVALUATION,
    ROBOT,
    TRAINING,
    demonstration_seeds,
    evaluation_seeds,
    training_seeds,
)


def test_fields_are_replaced_by_name() -> None:
    config = override(PpoConfig(), {"envs": 4, "gamma": 1, "clip": 0.1})
    assert (config.envs, config.gamma, config.clip) == (4, 1, 0.1)
    assert config.epochs == PpoConfig().epochs
    assert override(SftConfig(), {"preset": "tiny"}).preset == "tiny"
    assert override(EpisodesConfig(), {}) == EpisodesConfig()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, "'epoch' is not known; there are: .*epochs"),
        ({"Epochs": 3}, "not known"),
        ({"epochs": 3.0}, "'epochs' must be int, got 3.0"),
        ({"epochs": "3"}, "must be int"),
        ({"epochs": True}, "must be int"),
        ({"epochs": None}, "must be int"),
        ({"clip": "0.2"}, "must be float"),
        ({"clip": [0.2]}, "must be float"),
        ({"epochs": 0}, "'epochs' must be positive, got 0"),
        ({"clip": -0.2}, "must be positive"),
        ({"clip": math.nan}, "must be positive"),
        ({"clip": math.inf}, "must be positive"),
    ],
)
def test_what_is_unknown_mistyped_or_not_positive_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        override(PpoConfig(), values)


def test_a_choice_must_be_one_of_its_words() -> None:
    assert override(SftConfig(), {"vlm": "lora", "precision": "bfloat16"}).vlm == "lora"
    for values, words in (
        ({"vlm": "thawed"}, "'vlm' must be one of train, lora, frozen, got 'thawed'"),
        ({"precision": 16}, "'precision' must be one of float32, bfloat16, got 16"),
        ({"source": "dreams"}, "'source' must be one of expert, episodes"),
    ):
        with pytest.raises(ValueError, match=words):
            override(SftConfig(), values)


def test_what_is_off_by_default_can_be_told_so() -> None:
    off = {"warmup_steps": 0, "weight_decay": 0, "ema_decay": 0.0, "augment": 0}
    assert override(SftConfig(), off) == SftConfig()
    assert override(PpoConfig(), {"warmup_updates": 0, "dual_clip": 0}).warmup_updates == 0
    with pytest.raises(ValueError, match="'lora_rank' must be positive"):
        override(SftConfig(), {"lora_rank": 0})
    with pytest.raises(ValueError, match="'ema_decay' must be positive"):
        override(SftConfig(), {"ema_decay": -0.5})


def test_a_number_is_no_preset() -> None:
    with pytest.raises(ValueError, match="'preset' must be str"):
        override(SftConfig(), {"preset": 1})


def test_no_reset_seed_has_two_uses() -> None:
    """Training that meets an initial state of the evaluation list would report what it has learnt by heart."""
    for one, other in combinations((EVALUATION, DEMONSTRATION, ROBOT, TRAINING), 2):
        assert one.stop <= other.start or other.stop <= one.start
    kinds = {evaluation_seeds: EVALUATION, demonstration_seeds: DEMONSTRATION, training_seeds: TRAINING}
    for seeds, kind in kinds.items():
        first, second = seeds(0), seeds(1)
        assert first.start == kind.start
        assert first.stop == second.start
        last = len(kind) // len(first) - 1
        assert seeds(last).stop <= kind.stop
        for beyond in (last + 1, -1):
            with pytest.raises(ValueError, match=f"seed {beyond} must be 0 to {last}"):
                seeds(beyond)
    assert TRAINING.stop < 2**32, "numpy's RandomState, which places the robot, takes no more"
