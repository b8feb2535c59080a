"""The whole run of RL: workers, updates, a checkpoint that says where it comes from."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from local_pool import LocalPool
from toy_arm import Heard, make_toy, save_toy, toy_policy

from pirl_server.config.training import PpoConfig
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.checkpoint import load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.sim_rl.finetune import finetune
from pirl_server.training.sim_rl.learner import make_learner

CONFIG = PpoConfig(
    env_steps=60, envs=4, workers=1, decisions=5, warmup_updates=1, epochs=1, noise_level=0.4, torch_threads=1
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("base"), horizon=1)


@pytest.mark.slow
def test_a_run_trains_the_expert_only_and_records_its_lineage(base: Path, tmp_path: Path) -> None:
    heard = Heard()
    version = finetune(base, tmp_path / "out", make_toy(), 1, CONFIG, seed=3, progress=heard)
    made, parent = FlowPolicy.load(tmp_path / "out"), FlowPolicy.load(base)
    assert made.version == version != parent.version
    assert made.card.lineage["parent"] == parent.version
    assert made.card.lineage["method"] == "flow-sde ppo"
    assert made.card.lineage["seed"] == "3"
    assert "'noise_level': 0.4" in made.card.lineage["config"]
    assert made.card.noise_level == 0.4, "what is served explores as it was trained"
    before = parent.model.state_dict()
    changed = {name for name, tensor in made.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith(Pi0.VLM_PARTS) for name in changed)
    assert load_checkpoint(tmp_path / "out")[2] is not None, "the critic goes with it"
    assert [numbers["env_steps"] for numbers in heard.numbers] == [20, 40, 60]
    assert all(numbers["first_log_ratio"] < 1e-5 for numbers in heard.numbers)
    assert heard.reports == [(20, 60), (40, 60), (60, 60)]
    assert multiprocessing.active_children() == []


def test_the_success_of_no_episode_is_not_reported_as_a_number(base: Path, tmp_path: Path) -> None:
    """Six steps an episode, five an update."""
    heard = Heard()
    config = replace(CONFIG, env_steps=40)
    finetune(base, tmp_path / "out", make_toy(length=6), 6, config, seed=0, progress=heard, make_pool=LocalPool)
    assert heard.messages == ["env steps, no episode has ended yet", "env steps, rollout success 0.00"]


@pytest.mark.slow
def test_a_cancelled_run_saves_what_it_has(base: Path, tmp_path: Path) -> None:
    heard = Heard(cancel_after=1)
    version = finetune(base, tmp_path / "out", make_toy(), 1, CONFIG, seed=0, progress=heard)
    assert FlowPolicy.load(tmp_path / "out").version == version
    assert len(heard.numbers) == 1


def test_a_nan_reward_ends_the_run_and_writes_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="reward: a rollout value is not finite"):
        finetune(base, tmp_path / "out", make_toy(bad_reward_at=3), 1, CONFIG, seed=0, progress=Heard())
    assert not (tmp_path / "out").exists()
    assert multiprocessing.active_children() == []


def test_the_critic_of_the_base_is_gone_on_with(tmp_path: Path) -> None:
    save_toy(tmp_path / "base", critic=True)
    critic = make_learner(tmp_path / "base", CONFIG, 0).critic.state_dict()
    saved = load_checkpoint(tmp_path / "base")[2]
    assert saved is not None
    assert all(torch.equal(critic[name], tensor) for name, tensor in saved.items())


def test_what_cannot_be_trained_is_refused_in_words(base: Path, tmp_path: Path) -> None:
    policy = toy_policy()
    save_checkpoint(tmp_path / "critic", policy.card, policy.model.state_dict(), {"other.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="its critic is not one"):
        make_learner(tmp_path / "critic", CONFIG, 0)
    with pytest.raises(ValueError, match="critic_features 'pixels' are not known; there are: policy, tabletop"):
        make_learner(base, replace(CONFIG, critic_features="pixels"), 0)
    with pytest.raises(ValueError, match="seed 999 must be 0 to 998"):
        finetune(base, tmp_path / "out", make_toy(), 1, CONFIG, seed=999, progress=Heard())


@pytest.mark.parametrize("family", ["pi0", "smolvla"])
def test_a_policy_with_cameras_is_trained_in_the_same_way(family: str, tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base", horizon=1, sees=True, family=family)
    heard = Heard()
    finetune(base, tmp_path / "out", make_toy(sees=True), 1, CONFIG, seed=3, progress=heard)
    made, before = FlowPolicy.load(tmp_path / "out").model.state_dict(), FlowPolicy.load(base).model.state_dict()
    changed = {name for name, tensor in made.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith(FlowPolicy.load(base).model.VLM_PARTS) for name in changed)
    assert all(numbers["first_log_ratio"] < 1e-5 for numbers in heard.numbers)
