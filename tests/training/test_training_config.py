"""Overrides by name, and which reset seeds belong to whom."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from pirl_server.config.fields import parse
from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig
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
    config = parse(PpoConfig, {"envs": 4, "gamma": 1, "clip": 0.1})
    assert (config.envs, config.gamma, config.clip) == (4, 1, 0.1)
    assert config.epochs == PpoConfig().epochs
    assert parse(SftConfig, {"preset": "tiny"}).preset == "tiny"
    assert parse(EpisodesConfig, {}) == EpisodesConfig()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, "'epoch' is not known; did you mean epochs"),
        ({"xyz": 3}, "'xyz' is not known; there are: actor_learning_rate, .*epochs"),
        ({"epochs": 3.0}, "'epochs' must be a valid integer, got 3.0"),
        ({"epochs": "3"}, "must be a valid integer"),
        ({"epochs": True}, "must be a valid integer, got True"),
        ({"epochs": None}, "must be a valid integer, got None"),
        ({"clip": "0.2"}, "must be a valid number"),
        ({"clip": [0.2]}, "'clip' must be a valid number"),
        ({"epochs": 0}, "'epochs' must be greater than or equal to 1, got 0"),
        ({"clip": -0.2}, "must be greater than 0, got -0.2"),
        ({"clip": math.nan}, "must be a finite number, got nan"),
        ({"clip": math.inf}, "must be a finite number, got inf"),
        ({"gamma": 1.5}, "must be less than or equal to 1"),
        ({"critic_features": "\ud800"}, "'critic_features' must be Unicode: it has a lone surrogate"),
        ({"epochs": 0, "clip": 0}, "'epochs' .*; 'clip' "),
    ],
)
def test_what_is_unknown_mistyped_or_not_positive_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(PpoConfig, values)


def test_a_choice_must_be_one_of_its_words() -> None:
    assert parse(SftConfig, {"vlm": "lora", "precision": "bfloat16"}).vlm == "lora"
    for values, words in (
        ({"vlm": "thawed"}, "'vlm' must be 'train', 'lora' or 'frozen', got 'thawed'"),
        ({"precision": 16}, "'precision' must be 'float32' or 'bfloat16', got 16"),
        ({"source": "dreams"}, "'source' must be 'expert' or 'episodes'"),
    ):
        with pytest.raises(ValueError, match=words):
            parse(SftConfig, values)


def test_what_is_off_by_default_can_be_told_so() -> None:
    off = {"warmup_steps": 0, "weight_decay": 0, "ema_decay": 0.0, "augment": 0}
    assert parse(SftConfig, off) == SftConfig()
    assert parse(PpoConfig, {"warmup_updates": 0, "dual_clip": 0}) == PpoConfig(warmup_updates=0)
    assert PpoConfig(dual_clip=0).dual_clip is None
    with pytest.raises(ValueError, match="'lora_rank' must be greater than or equal to 1"):
        parse(SftConfig, {"lora_rank": 0})
    with pytest.raises(ValueError, match="'ema_decay' must be greater than 0"):
        parse(SftConfig, {"ema_decay": -0.5})


def test_a_number_is_no_preset() -> None:
    with pytest.raises(ValueError, match=r"'preset' must be 'tiny-state'.* or 'smolvla-tiny', got 1"):
        parse(SftConfig, {"preset": 1})


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
