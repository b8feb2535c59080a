"""THE property of PPO here: weights that have not changed give a ratio of 1, wherever the decision was logged."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_arm import make_toy, save_toy, spoken_policy, toy_observation, toy_policy

from pirl_server import simulation
from pirl_server.algorithm import flow_sde
from pirl_server.algorithm.hybrid_sampler import step_of_chain, transition_log_prob
from pirl_server.config.training import PpoConfig
from pirl_server.model.critic import StateCritic
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.features import STATE_DIM
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import PolicySample
from pirl_server.training.prefix_cache import KEEP_BYTES
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector
from pirl_server.training.rollout.explorer import Explorer
from pirl_server.training.rollout.worker_pool import WorkerPool
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update import log_prob, update
from pirl_server.training.sim_rl.update_batch import prepare
from pirl_server.training.supervised.sft import new_card

CLOSE = 1e-5
CONFIG = PpoConfig(env_steps=1, envs=4, workers=2, decisions=6, epochs=1, minibatch=64, torch_threads=1)


def spoil(policy: FlowPolicy) -> None:
    """Change one weight of the expert by 1 %: its largest output weight."""
    weight = policy.model.action_out_proj.weight.data
    weight.view(-1)[weight.abs().argmax()] *= 1.01


def recomputed(policy: FlowPolicy, sample: PolicySample, noise_level: float) -> torch.Tensor:
    """Density [H, D] of a stored chain by the weights and the schedule given: what a later job would compute."""
    observation = toy_observation()
    chain, index = torch.from_numpy(sample.chain)[None], torch.tensor([sample.sde_index])
    state, prefix = torch.from_numpy(policy.features(observation.state[None])), policy.prefix(observation)
    x, x_next = step_of_chain(chain, index)
    with torch.no_grad():
        return transition_log_prob(
            lambda x, t: policy.model.velocity(prefix, state, x, t), x, x_next, index, policy.card.denoise_steps,
            partial(flow_sde.transition, noise_level=noise_level),
        )[0]  # fmt: skip


def worst(policy: FlowPolicy, samples: list[PolicySample], noise_level: float | None = None) -> float:
    """Largest difference between logged and recomputed log-probabilities."""
    pairs = [(recomputed(policy, each, noise_level or each.noise_level), each.log_prob) for each in samples]
    return max(float(np.abs(again.numpy() - logged).max()) for again, logged in pairs)


def test_a_served_sample_can_be_recomputed_from_its_chain(tmp_path: Path) -> None:
    """From the checkpoint on disk, as a job does with an episode logged days ago; at each of the K steps."""
    policy = toy_policy()
    samples = [policy.sample(toy_observation(), explore=True, seed=seed) for seed in range(40)]
    assert {sample.sde_index for sample in samples} == {0, 1, 2, 3}
    archived = FlowPolicy.load(save_toy(tmp_path))
    assert worst(archived, samples) < CLOSE
    assert worst(archived, samples, noise_level=0.45) > 100 * CLOSE
    spoil(archived)
    assert worst(archived, samples) > 10 * CLOSE


def first_log_ratio(learner: Learner, batch: DecisionBatch, config: PpoConfig = CONFIG) -> float:
    return update(learner, batch, config, torch.Generator().manual_seed(0), train_actor=True)["first_log_ratio"]


@pytest.fixture(scope="module", params=["pi0", "smolvla"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("ratio"), execute_horizon=1, family=request.param)


@pytest.fixture(scope="module")
def batch(checkpoint: Path) -> DecisionBatch:
    collector = Collector(make_toy(length=3), FlowPolicy.load(checkpoint), 4, count(1), 3)
    return collector.collect(6)


def test_the_first_minibatch_of_a_collector_s_batch(checkpoint: Path, batch: DecisionBatch) -> None:
    """Two instructions of different length, chunks executed in part, episodes that end on the way."""
    assert set(batch.sentence_TN.ravel()) == {0, 1}
    assert batch.done_TN.any()
    learner = make_learner(checkpoint, CONFIG, 0)
    decisions = prepare(learner, batch, CONFIG)
    difference = log_prob(learner, decisions)[0] - decisions.old_log_prob
    assert float(difference.detach().abs().max()) < CLOSE
    assert first_log_ratio(learner, batch) < CLOSE


def test_one_weight_changed_by_one_percent_is_seen(checkpoint: Path, batch: DecisionBatch) -> None:
    """Negative control."""
    learner = make_learner(checkpoint, CONFIG, 0)
    spoil(learner.policy)
    assert first_log_ratio(learner, batch) > 10 * CLOSE


def test_another_noise_level_is_seen(checkpoint: Path, batch: DecisionBatch) -> None:
    """Negative control; the update ends at its first minibatch and still reports."""
    config = replace(CONFIG, noise_level=0.3)
    learner = make_learner(checkpoint, config, 0)
    numbers = update(learner, batch, config, torch.Generator().manual_seed(0), train_actor=True)
    assert numbers["first_log_ratio"] > 0.1
    assert numbers["actor_steps"] == 0


def test_the_first_minibatch_of_workers_with_the_learner_s_weights(checkpoint: Path) -> None:
    """Over pipes, with weights and a noise level that are not the checkpoint's."""
    config = replace(CONFIG, noise_level=0.3, workers=1)
    learner = make_learner(checkpoint, config, 0)
    spoil(learner.policy)
    with closing(WorkerPool(make_toy(length=3), checkpoint, 3, config=replace(CONFIG, workers=1), seed=1)) as pool:
        assert first_log_ratio(learner, pool.collect(learner.weights(), 6, noise_level=0.3, version=0), config) < CLOSE


@pytest.fixture(scope="module", params=["pi0", "smolvla"])
def seeing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("seeing"), execute_horizon=1, sees=True, family=request.param)


def look(checkpoint: Path, keep_bytes: int) -> DecisionBatch:
    """Decisions by pictures; with 0 bytes the pictures travel, else what the rollout's policy made of them."""
    policy = FlowPolicy.load(checkpoint)
    return Collector(make_toy(length=3, sees=True), policy, 4, count(1), 3, keep_bytes=keep_bytes).collect(6)


@pytest.mark.parametrize("keep_bytes", [0, KEEP_BYTES])
def test_the_first_minibatch_with_cameras(seeing: Path, keep_bytes: int) -> None:
    """Prefixes of pictures, encoded again in parts of 5 rows or kept: two instructions of different length."""
    config = replace(CONFIG, prefix_batch=5)
    learner, batch = make_learner(seeing, config, 0), look(seeing, keep_bytes)
    assert set(batch.sentence_TN.ravel()) == {0, 1}
    assert (batch.images is None, batch.prefix is None) == (keep_bytes > 0, keep_bytes == 0)
    assert first_log_ratio(learner, batch, config) < CLOSE


def test_kept_prefixes_of_several_workers_are_joined(seeing: Path) -> None:
    """Their prompts differ in length: rows are filled up, and over the pipe nothing changes."""
    policy = FlowPolicy.load(seeing)
    parts = [Collector(make_toy(length=3, sees=True), policy, 1, count(seed), 3).collect(1) for seed in (1, 2, 3, 4)]
    lengths = {part.prefix["mask"].shape[2] for part in parts if part.prefix}
    assert len(lengths) == 2, "two instructions"
    merged = DecisionBatch.from_bytes(DecisionBatch.merge(parts).to_bytes())
    assert first_log_ratio(make_learner(seeing, CONFIG, 0), merged) < CLOSE
    assert merged.prefix is not None
    other = {**merged.prefix, "values": np.roll(merged.prefix["values"], 1, axis=1)}
    assert first_log_ratio(make_learner(seeing, CONFIG, 0), replace(merged, prefix=other)) > 10 * CLOSE, "control"


def test_other_pictures_are_seen(seeing: Path) -> None:
    """Negative control: a decision's density depends on its own pixels, and on those of each camera."""
    learner, batch = make_learner(seeing, CONFIG, 0), look(seeing, keep_bytes=0)
    for camera in ("base", "wrist"):
        assert batch.images is not None
        turned = {**batch.images, camera: np.roll(batch.images[camera], 1, axis=0)}
        decisions = prepare(learner, replace(batch, images=turned), CONFIG)
        difference = log_prob(learner, decisions)[0] - decisions.old_log_prob
        assert float(difference.detach().abs().max()) > 10 * CLOSE, camera


@pytest.mark.parametrize("sees", [False, True])
def test_the_first_minibatch_with_the_state_in_the_prompt(sees: bool) -> None:
    """pi0.5: the learner writes each decision's prompt again from the state that was kept."""
    policy, critic = spoken_policy(sees=sees), StateCritic(STATE_DIM)
    actor, value = (
        torch.optim.Adam([{"params": list(module.parameters()), "rate": 1e-4}]) for module in (policy.model, critic)
    )
    learner = Learner(policy, None, critic, actor, value, Explorer(policy, CONFIG))
    batch = Collector(make_toy(length=3, sees=sees), policy, 4, count(1), 3, keep_bytes=0).collect(6)
    decisions = prepare(learner, batch, replace(CONFIG, prefix_batch=5))
    difference = log_prob(learner, decisions)[0] - decisions.old_log_prob
    assert float(difference.detach().abs().max()) < CLOSE
    assert batch.state_TNS is not None
    other = prepare(learner, replace(batch, state_TNS=batch.state_TNS[::-1].copy()), CONFIG)
    difference = log_prob(learner, other)[0] - other.old_log_prob
    assert float(difference.detach().abs().max()) > 10 * CLOSE, "negative control: another state, another prompt"


def test_a_critic_that_is_told_more_changes_nothing_for_the_policy(checkpoint: Path) -> None:
    """The policy's features are made again from the state; the critic's are in the batch."""
    config = replace(CONFIG, critic_features="tabletop_relative")
    policy = FlowPolicy.load(checkpoint)
    wide = Collector(make_toy(length=3, extra_state=14), policy, 4, count(1), 3, "tabletop_relative").collect(6)
    plain = Collector(make_toy(length=3, extra_state=14), policy, 4, count(1), 3).collect(6)
    np.testing.assert_array_equal(wide.chain_TNKHD, plain.chain_TNKHD)
    assert np.abs(wide.features_TNF - plain.features_TNF).max() > 0.1
    assert first_log_ratio(make_learner(checkpoint, config, 0), wide, config) < CLOSE


@pytest.mark.sim
@pytest.mark.render
@pytest.mark.slow
def test_the_first_minibatch_with_rendered_pictures(tmp_path: Path) -> None:
    """The `tiny` preset on ManiSkill's camera; the critic is told where the cube is, the policy has to look."""
    task, config = "PushCube-v1", replace(CONFIG, critic_features="tabletop_relative")
    card = new_card("tiny", task, simulation.contract(), simulation.instructions(task))
    save_checkpoint(tmp_path, card, Pi0(card.model).state_dict())
    make = partial(simulation.fast_env, task, True)
    collector = Collector(make, FlowPolicy.load(tmp_path), 1, count(1), 48, config.critic_features, keep_bytes=0)
    batch = collector.collect(3)
    collector.close()
    assert batch.images is not None
    (pixels,) = batch.images.values()
    assert pixels.shape == (3, 1, 64, 64, 3)
    assert (pixels[0] != pixels[2]).any(), "the arm has moved"
    assert first_log_ratio(make_learner(tmp_path, config, 0), batch, config) < CLOSE
