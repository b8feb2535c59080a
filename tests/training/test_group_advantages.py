"""GRPO's loss weighs episodes alike: a failure that lasts four times as long as a success says no more than it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_arm import make_toy, save_toy

from pirl_server.algorithm.advantage import group_relative
from pirl_server.config.training import PpoConfig
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import GroupCollector
from pirl_server.training.sim_rl.group_advantages import group_advantages
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update import update

CONFIG = PpoConfig(advantage="grpo", group=8, envs=16, workers=1, epochs=1, minibatch=10**6)
SUCCESS, FAILURE = (3, 3, 3, 4), 12
"""decisions of PushCube's episodes: 3.25 in the mean until the cube is there, 12 until time is up"""


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return make_learner(save_toy(tmp_path_factory.mktemp("groups"), execute_horizon=1), CONFIG, 0)


def played(learner: Learner, **world: Any) -> DecisionBatch:
    """Two groups of eight episodes of up to twelve decisions."""
    make = make_toy(length=FAILURE, **world)
    return GroupCollector(make, learner.policy, 16, count(1), FAILURE, explorer=learner.explorer).collect(1)


def with_lengths(batch: DecisionBatch, length_N: list[int], success_N: list[bool]) -> DecisionBatch:
    valid_TN = np.arange(FAILURE)[:, None] < np.array(length_N)
    return replace(batch, valid_TN=valid_TN, episode_success=np.array(success_N))


@pytest.fixture(scope="module")
def batch(learner: Learner) -> DecisionBatch:
    """A group of four successes and four failures, then one of a success and seven failures."""
    first, second = [*SUCCESS, *[FAILURE] * 4], [SUCCESS[0], *[FAILURE] * 7]
    outcome = [length < FAILURE for length in first + second]
    return with_lengths(played(learner), first + second, outcome)


def test_advantages_balance_within_a_group(batch: DecisionBatch) -> None:
    advantage_TN, learnt_TN = group_advantages(batch, CONFIG)
    assert torch.equal(learnt_TN, torch.from_numpy(batch.valid_TN))
    for group in (slice(0, 8), slice(8, 16)):
        entries, failed = (advantage_TN * learnt_TN)[:, group], ~torch.from_numpy(batch.episode_success[group])
        assert float(entries.sum()) == pytest.approx(0.0, abs=1e-4)
        assert float(entries[:, failed].abs().sum() / entries.abs().sum()) == pytest.approx(0.5, abs=1e-5)
    per_episode_N = (advantage_TN * learnt_TN).sum(dim=0)
    outcome_GE = torch.from_numpy(batch.episode_success).float().reshape(2, 8)
    torch.testing.assert_close(
        per_episode_N / learnt_TN.sum() * 16, group_relative(outcome_GE).flatten(), rtol=0, atol=1e-5
    )


def test_a_plain_mean_over_decisions_is_biased(batch: DecisionBatch) -> None:
    """Negative control, by hand: 0.935 times (13 - 48) / 61, and 48 / 61 of the absolute advantage on failures."""
    first = with_lengths(batch, [*SUCCESS, *[FAILURE] * 4] * 2, [*[True] * 4, *[False] * 4] * 2)
    outcome_GE = torch.from_numpy(first.episode_success).float().reshape(2, 8)
    plain_TN = group_relative(outcome_GE).flatten() * torch.from_numpy(first.valid_TN)
    assert float(plain_TN.sum() / first.valid_TN.sum()) == pytest.approx(-0.5367, abs=1e-3)
    share = plain_TN[plain_TN < 0].abs().sum() / plain_TN.abs().sum()
    assert float(share) == pytest.approx(48 / 61, abs=1e-5)


def test_it_is_a_masked_mean_in_which_each_entry_is_divided_by_valid_over_longest(batch: DecisionBatch) -> None:
    """RLinf's form, over all T N entries: the same mean of a loss that is proportional to the advantage."""
    advantage_TN, learnt_TN = group_advantages(batch, CONFIG)
    value_TN = torch.rand(learnt_TN.shape, generator=torch.Generator().manual_seed(0))
    outcome_GE = torch.from_numpy(batch.episode_success).float().reshape(2, 8)
    ratio_N = learnt_TN.sum(dim=0) / len(learnt_TN)
    theirs = (value_TN * group_relative(outcome_GE).flatten() * learnt_TN / ratio_N).mean()
    ours = (value_TN * advantage_TN)[learnt_TN].mean()
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)
    assert abs(float(ours)) > 1e-2


def test_equal_lengths_leave_advantages_as_they_are(batch: DecisionBatch) -> None:
    outcome = [True, False] * 8
    advantage_TN, _ = group_advantages(with_lengths(batch, [5] * 16, outcome), CONFIG)
    plain_N = group_relative(torch.tensor(outcome).float().reshape(2, 8)).flatten()
    torch.testing.assert_close(advantage_TN[0], plain_N)


def test_a_group_that_is_left_out_does_not_scale_the_others(batch: DecisionBatch) -> None:
    outcome = batch.episode_success.copy()
    outcome[8:] = True
    advantage_TN, learnt_TN = group_advantages(replace(batch, episode_success=outcome), CONFIG)
    assert not learnt_TN[:, 8:].any()
    weighted_N = (advantage_TN * learnt_TN).sum(dim=0)[:8] / learnt_TN.sum() * 8
    torch.testing.assert_close(weighted_N, group_relative(torch.from_numpy(outcome[None, :8]).float())[0])


@pytest.mark.parametrize("changes", [{}, {"group_return": "reward"}, {"dual_clip": 3.0}], ids=str)
def test_the_loss_of_unchanged_weights_is_0(learner: Learner, changes: dict[str, Any], tmp_path: Path) -> None:
    """All the way through an update of episodes that really end at different times: the ratio is 1 everywhere."""
    config = replace(CONFIG, **changes)
    fresh = make_learner(save_toy(tmp_path, execute_horizon=1), config, 0)
    batch = played(fresh, tolerance=0.3)
    assert len(set(batch.valid_TN.sum(axis=0))) > 3
    numbers = update(fresh, batch, config, torch.Generator().manual_seed(0), train_actor=True)
    assert numbers["actor_steps"] == 1
    assert numbers["actor_grad_norm"] > 0
    assert numbers["policy_loss"] == pytest.approx(0.0, abs=1e-4)
