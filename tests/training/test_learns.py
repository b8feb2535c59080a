"""Each way to explore and to compare makes a task better that can be, and only from what tells something."""

from __future__ import annotations

import functools
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_arm import make_toy, save_toy

from pirl_server.config.training import PpoConfig
from pirl_server.training.chunk_dataset import make_windows
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector, GroupCollector
from pirl_server.training.sim_rl.bc_loss import Imitation
from pirl_server.training.sim_rl.learner import make_learner
from pirl_server.training.sim_rl.update import update
from pirl_server.training.sim_rl.update_batch import per_task

UPDATES, ENVS, AMOUNT = 9, 16, 16
SETTINGS = {"epochs": 2, "minibatch": 128, "actor_learning_rate": 1e-3, "critic_learning_rate": 3e-3, "envs": ENVS}
CHOICES: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "all steps": {"steps": "all", "max_kl": 0.5},
    "per step": {"steps": "all", "reduction": "per_step"},
    "flow-noise": {"noise": "flow-noise", "steps": "all", "reduction": "mean_steps", "entropy_weight": 0.005},
    "grpo": {"advantage": "grpo", "group": 8, "group_return": "reward"},
    "expert": {"critic": "expert", "value_clip": 0.2, "huber_delta": 10.0},
    "all of PPO": {"clip_high": 0.28, "dual_clip": 3.0, "index": "stratified", "advantage_scale": "task"},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("learns"), horizon=1)


@pytest.fixture(scope="module")
def smolvla(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("learns-too"), horizon=1, family="smolvla")


def shuffled(batch: DecisionBatch, random: np.random.Generator) -> DecisionBatch:
    """The same decisions, each with the reward of another."""
    order = random.permutation(batch.reward_TN.size)
    returns = batch.episode_return[random.permutation(len(batch.episode_return))]
    mixed = batch.reward_TN.ravel()[order].reshape(batch.reward_TN.shape)
    return replace(batch, reward_TN=mixed, episode_return=returns)


@functools.cache
def run(checkpoint: Path, name: str, *, mix: bool = False) -> list[float]:
    """Mean reward of each update's rollouts in a world of one step and one right action."""
    config = PpoConfig(**(SETTINGS | CHOICES[name]))
    learner = make_learner(checkpoint, config, seed=0)
    kind = GroupCollector if config.advantage == "grpo" else Collector
    rollouts = kind(make_toy(), learner.policy, ENVS, count(1), 1, explorer=learner.explorer)
    generator, random, means = torch.Generator().manual_seed(0), np.random.default_rng(0), []
    for number in range(UPDATES):
        batch = rollouts.collect(AMOUNT)
        means.append(float(batch.reward_TN.mean()))
        update(learner, shuffled(batch, random) if mix else batch, config, generator, train_actor=number > 0)
    return means


@pytest.mark.parametrize("name", CHOICES)
def test_rewards_rise(checkpoint: Path, name: str) -> None:
    means = run(checkpoint, name)
    assert np.mean(means[-3:]) - means[0] > 0.4 * -means[0], means


@pytest.mark.parametrize("name", ["hybrid", "flow-noise"])
def test_rewards_rise_for_smolvla_too(smolvla: Path, name: str) -> None:
    means = run(smolvla, name)
    assert np.mean(means[-3:]) - means[0] > 0.4 * -means[0], means


@pytest.mark.parametrize("name", ["flow-noise", "grpo"])
def test_shuffled_rewards_teach_nothing(checkpoint: Path, name: str) -> None:
    """Negative control: same loop, seeds and step sizes, without the signal."""
    learnt, control = run(checkpoint, name), run(checkpoint, name, mix=True)
    assert learnt[0] == control[0]
    assert np.mean(control[-3:]) - control[0] < 0.4 * (np.mean(learnt[-3:]) - learnt[0]), control


def test_each_task_has_advantages_on_its_own_scale() -> None:
    """A task with rewards a hundred times larger does not drown the other; one decision alone is 0."""
    random = torch.Generator().manual_seed(0)
    advantage, task = torch.randn(6, 4, generator=random), torch.tensor([0, 1, 0, 1]).expand(6, 4).clone()
    task[0, 0] = 2
    scaled = per_task(torch.where(task == 1, 100 * advantage + 7, advantage), task)
    for each in (0, 1):
        assert float(scaled[task == each].mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(scaled[task == each].std(unbiased=False)) == pytest.approx(1.0, abs=1e-3)
    assert float(scaled[0, 0]) == 0.0


def test_imitation_beside_it_pulls_towards_the_demonstrations(checkpoint: Path) -> None:
    """Rewards say nothing here; what was demonstrated is told by flow matching alone."""
    config = PpoConfig(**SETTINGS, imitation_weight=1.0)
    learner = make_learner(checkpoint, config, seed=0)
    state = np.random.default_rng(0).normal(size=(64, 21)).astype(np.float32) * 0.1
    shown = np.tile(np.array([0.05, -0.5], np.float32), (64, 1, 1))
    imitation = Imitation(
        learner.policy, make_windows(learner.policy, state, ["do it"] * 64, shown, None), config, seed=0
    )
    rollouts = Collector(make_toy(), learner.policy, ENVS, count(1), 1, explorer=learner.explorer)
    generator, random, losses = torch.Generator().manual_seed(0), np.random.default_rng(0), []
    for _ in range(UPDATES):
        batch = shuffled(rollouts.collect(AMOUNT), random)
        losses.append(update(learner, batch, config, generator, True, imitation)["imitation_loss"])
    assert losses[-1] < 0.7 * losses[0], losses
