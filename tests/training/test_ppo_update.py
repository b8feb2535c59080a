"""PPO updates: they improve a task that can be improved, and only from advantages that mean something."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_arm import make_toy, save_toy, toy_observation

from pirl_server.config.training import PpoConfig
from pirl_server.training.prefix_cache import KEEP_BYTES
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update import update

CONFIG = PpoConfig(epochs=2, minibatch=128, actor_learning_rate=1e-3, critic_learning_rate=3e-3, torch_threads=1)
UPDATES, ENVS, DECISIONS = 9, 16, 16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("ppo"), horizon=1)


def run(checkpoint: Path, shuffled: bool, updates: int = UPDATES, sees: bool = False) -> list[float]:
    """Mean reward of each update's rollouts; `shuffled` rewards tell nothing about the decision."""
    learner = make_learner(checkpoint, CONFIG, seed=0)
    rollouts = Collector(make_toy(sees=sees), learner.policy, ENVS, count(1), max_steps=1)
    generator, shuffle, means = torch.Generator().manual_seed(0), np.random.default_rng(0), []
    for number in range(updates):
        batch = rollouts.collect(DECISIONS)
        means.append(float(batch.reward_TN.mean()))
        if shuffled:
            mixed = shuffle.permutation(batch.reward_TN.ravel()).reshape(batch.reward_TN.shape)
            batch = replace(batch, reward_TN=mixed)
        update(learner, batch, CONFIG, generator, train_actor=number > 0)
    return means


def test_a_task_that_can_be_improved_is_and_shuffled_rewards_are_not(checkpoint: Path) -> None:
    """One-step world, reward -(a - a*)^2: the same loop, seeds and step sizes, with and without the signal."""
    learnt, control = run(checkpoint, shuffled=False), run(checkpoint, shuffled=True)
    assert learnt[0] == control[0]
    gain, drift = np.mean(learnt[-3:]) - learnt[0], np.mean(control[-3:]) - control[0]
    assert gain > 0.5 * -learnt[0], learnt
    assert drift < 0.25 * gain, control


def test_a_policy_with_cameras_improves_too(tmp_path: Path) -> None:
    means = run(save_toy(tmp_path, horizon=1, sees=True), shuffled=False, sees=True)
    assert np.mean(means[-3:]) - means[0] > 0.5 * -means[0], means


def test_a_prefix_is_encoded_once_per_decision_however_many_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(save_toy(tmp_path, horizon=1, sees=True), CONFIG, seed=0)
    batch, kept = (
        Collector(make_toy(sees=True), learner.policy, 8, count(1), max_steps=1, keep_bytes=keep).collect(4)
        for keep in (0, KEEP_BYTES)
    )
    encode, rows = learner.policy.model.encode_prefix, []

    def counted(images, *rest, **more):  # type: ignore[no-untyped-def]
        rows.append(len(images))
        return encode(images, *rest, **more)

    monkeypatch.setattr(learner.policy.model, "encode_prefix", counted)
    step(learner, batch, epochs=5, minibatch=8, prefix_batch=10)
    assert rows == [10, 10, 10, 2]
    step(learner, kept, epochs=5, minibatch=8, prefix_batch=10)
    assert rows == [10, 10, 10, 2], "what the rollout encoded is not encoded again"


@pytest.fixture
def learner(checkpoint: Path) -> Learner:
    return make_learner(checkpoint, CONFIG, seed=0)


@pytest.fixture
def batch(learner: Learner) -> DecisionBatch:
    return Collector(make_toy(), learner.policy, 8, count(1), max_steps=1).collect(32)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def step(learner: Learner, batch: DecisionBatch, train_actor: bool = True, **config: float) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    return update(learner, batch, replace(CONFIG, **config), generator, train_actor)  # type: ignore[arg-type]


def test_an_update_changes_the_expert_and_the_critic_only(learner: Learner, batch: DecisionBatch) -> None:
    actor, critic = weights(learner.policy.model), weights(learner.critic)
    numbers = step(learner, batch)
    moved = changed(learner.policy.model, actor)
    vlm = {name for name in actor if name.startswith(("embed_tokens.", "language."))}
    assert vlm
    assert not moved & vlm
    trained = {name for name, p in learner.policy.model.named_parameters() if p.requires_grad}
    assert trained.isdisjoint(vlm)
    assert len(moved) > 0.8 * len(trained)
    assert changed(learner.critic, critic)
    assert numbers["actor_steps"] > 0
    assert 0 < numbers["ess"] <= 1
    assert all(np.isfinite(value) for value in numbers.values())


def test_warm_up_changes_the_critic_only(learner: Learner, batch: DecisionBatch) -> None:
    actor, critic = weights(learner.policy.model), weights(learner.critic)
    numbers = step(learner, batch, train_actor=False, epochs=20)
    assert changed(learner.policy.model, actor) == set()
    assert changed(learner.critic, critic)
    assert numbers["approx_kl"] < 1e-6
    value = float(learner.value(torch.from_numpy(batch.features_TNF)).detach().mean())
    assert value == pytest.approx(batch.reward_TN.mean(), rel=0.3)


def test_an_update_stops_at_the_kl_limit(checkpoint: Path, batch: DecisionBatch) -> None:
    first, second = (make_learner(checkpoint, CONFIG, seed=0) for _ in range(2))
    free = step(first, batch, actor_learning_rate=3e-2, max_kl=1e9, epochs=4)
    held = step(second, batch, actor_learning_rate=3e-2, max_kl=0.01, epochs=4)
    assert free["actor_steps"] == 8
    assert held["actor_steps"] < 8
    assert held["approx_kl"] > 0.01, "the last minibatch seen is the one that said stop"


@pytest.mark.parametrize("column", ["reward_TN", "features_TNF", "last_features_NF"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_stops_before_anything_is_learnt(
    learner: Learner, batch: DecisionBatch, column: str, value: float
) -> None:
    actor, critic = weights(learner.policy.model), weights(learner.critic)
    spoiled = getattr(batch, column).copy()
    spoiled.flat[-1] = value
    with pytest.raises(RuntimeError, match=rf"{column.split('_')[0]}.*not finite"):
        step(learner, replace(batch, **{column: spoiled}), minibatch=16)
    assert changed(learner.policy.model, actor) == set()
    assert changed(learner.critic, critic) == set()
    assert step(learner, batch)["actor_steps"] > 0  # negative control: the same batch without it


def test_gradients_that_overflow_are_an_error_in_words(learner: Learner, batch: DecisionBatch) -> None:
    huge = replace(batch, reward_TN=np.full_like(batch.reward_TN, 3e38))
    with pytest.raises(RuntimeError, match=r"gradient of 'critic layers\.0\.weight': .* not finite"):
        step(learner, huge)


def test_equal_rewards_teach_nothing(checkpoint: Path, batch: DecisionBatch) -> None:
    """Every decision as good as the next: the mean action stays where it was."""
    same = replace(batch, reward_TN=np.full_like(batch.reward_TN, -1.0), features_TNF=np.zeros_like(batch.features_TNF))
    moved = []
    for taught in (batch, same):
        learner = make_learner(checkpoint, CONFIG, seed=0)
        before = _mean_action(learner)
        step(learner, taught)
        moved.append(np.abs(_mean_action(learner) - before).max())
    assert moved[1] < 0.1 * moved[0]


def _mean_action(learner: Learner) -> np.ndarray:
    drawn = [learner.policy.sample(toy_observation(), explore=False, seed=seed).chain[-1] for seed in range(8)]
    return np.mean(drawn, axis=(0, 1))
