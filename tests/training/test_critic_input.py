"""What a critic can be told by name, and that a policy's own input never depends on it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_arm import INSTRUCTIONS, make_toy, save_toy, toy_policy

from pirl_server.config.training import PpoConfig
from pirl_server.policy.features import FEATURES, STATE_DIM
from pirl_server.training.rollout.collector import Collector
from pirl_server.training.rollout.critics import CriticInput, critic_width
from pirl_server.training.sim_rl.learner import make_learner
from pirl_server.training.sim_rl.update import log_prob
from pirl_server.training.sim_rl.update_batch import prepare

STATE = np.random.default_rng(0).normal(size=(3, 35)).astype(np.float32)
SENTENCE = np.array([1, 0, 1])


@pytest.mark.parametrize("name", ["policy", "tabletop_relative"])
def test_the_instruction_is_a_one_hot_behind_the_state(name: str) -> None:
    policy = toy_policy()
    plain, told = CriticInput(policy, name), CriticInput(policy, f"{name}_and_instruction")
    features = told.features(STATE, SENTENCE)
    np.testing.assert_array_equal(features[:, :-2], plain.features(STATE, SENTENCE))
    np.testing.assert_array_equal(features[:, -2:], [[0, 1], [1, 0], [0, 1]])
    assert critic_width(policy.card, told.name) == features.shape[1] == STATE_DIM + len(INSTRUCTIONS)
    assert critic_width(policy.card, plain.name) == STATE_DIM


def test_names_that_are_not_known_are_refused_in_words() -> None:
    for name in ("pixels", "pixels_and_instruction", "_and_instruction"):
        with pytest.raises(ValueError, match=f"'{name}' are not known; there are: policy, {next(iter(FEATURES))}"):
            CriticInput(toy_policy(), name)


def test_a_told_critic_changes_nothing_for_the_policy(tmp_path: Path) -> None:
    config = PpoConfig(critic_features="policy_and_instruction", noise_level=0.5)
    policy = toy_policy()
    save_toy(tmp_path / "base")
    told = Collector(make_toy(length=3), policy, 4, count(1), 3, config.critic_features).collect(6)
    plain = Collector(make_toy(length=3), policy, 4, count(1), 3).collect(6)
    np.testing.assert_array_equal(told.chain_TNKHD, plain.chain_TNKHD)
    np.testing.assert_array_equal(told.features_TNF[..., STATE_DIM:-1].argmax(-1), told.sentence_TN)
    assert 0 < told.sentence_TN.mean() < 1, "both sentences occur"
    learner = make_learner(tmp_path / "base", config, 0)
    decisions = prepare(learner, told, config)
    difference = log_prob(learner, decisions)[0] - decisions.old_log_prob
    assert float(difference.detach().abs().max()) < 1e-5
    swapped = decisions.critic.clone()
    swapped[:, STATE_DIM : STATE_DIM + 2] = swapped[:, STATE_DIM : STATE_DIM + 2].flip(-1)
    with torch.no_grad():
        assert float((learner.value(decisions.critic) - learner.value(swapped)).abs().max()) > 0, "it does read it"
