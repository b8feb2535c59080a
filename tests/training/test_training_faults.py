"""What goes wrong in a run is said in words, and no weight is changed by it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_arm import Heard, make_toy, save_toy

from pirl_server.config.fields import parse
from pirl_server.config.training import PpoConfig
from pirl_server.policy.checkpoint import load_checkpoint
from pirl_server.training.rollout.collector import Collector, GroupCollector
from pirl_server.training.sim_rl.finetune import finetune
from pirl_server.training.sim_rl.group_advantages import NothingToCompareError
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update import update

GRPO: dict[str, Any] = {"advantage": "grpo", "group": 4, "envs": 8, "workers": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("faults"))


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    """All that an update could spoil."""
    found = {name: tensor.clone() for name, tensor in learner.policy.model.state_dict().items()}
    if learner.critic is not None:
        found |= {f"critic {name}": tensor.clone() for name, tensor in learner.critic.state_dict().items()}
    return found


def unchanged(learner: Learner, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in weights(learner).items())


def step(learner: Learner, batch: Any, config: PpoConfig) -> dict[str, float]:
    return update(learner, batch, config, torch.Generator().manual_seed(0), train_actor=True)


@pytest.mark.parametrize("choices", [{}, GRPO, {"noise": "flow-noise", "steps": "all"}], ids=str)
def test_a_gradient_that_is_not_a_number_changes_nothing_and_is_named(
    checkpoint: Path, choices: dict[str, Any]
) -> None:
    config = PpoConfig(**({"envs": 8} | choices), group_return="reward", epochs=1)
    learner = make_learner(checkpoint, config, 0)
    kind = GroupCollector if config.advantage == "grpo" else Collector
    batch = kind(make_toy(length=3), learner.policy, 8, count(1), 3, explorer=learner.explorer).collect(2)
    weight = learner.policy.model.action_out_proj.weight
    hook = weight.register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[no-untyped-call]
    actor = {name: tensor.clone() for name, tensor in learner.policy.model.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"gradient of 'action_out_proj\.weight': .* not finite"):
        step(learner, batch, config)
    assert all(torch.equal(learner.policy.model.state_dict()[name], tensor) for name, tensor in actor.items())
    hook.remove()
    assert step(learner, batch, config)["actor_steps"] == 1, "negative control: without the fault it learns"
    assert not torch.equal(learner.policy.model.state_dict()["action_out_proj.weight"], actor["action_out_proj.weight"])


def test_a_reward_that_is_not_a_number_stops_groups_too(checkpoint: Path) -> None:
    config = PpoConfig(**GRPO, group_return="reward")
    learner = make_learner(checkpoint, config, 0)
    rollouts = GroupCollector(make_toy(length=3), learner.policy, 8, count(1), 3, explorer=learner.explorer)
    batch, before = rollouts.collect(1), weights(learner)
    batch.reward_TN[1, 3] = np.nan
    with pytest.raises(RuntimeError, match="reward: a rollout value is not finite; the update was skipped"):
        step(learner, batch, config)
    assert unchanged(learner, before)


@pytest.mark.parametrize("tolerance", [0.0, 1e9], ids=["all failures", "all successes"])
def test_groups_that_all_end_alike_teach_nothing_and_the_run_goes_on(
    checkpoint: Path, tmp_path: Path, tolerance: float
) -> None:
    config = PpoConfig(**GRPO, env_steps=20, epochs=1)
    heard, said = Heard(), list[str]()
    heard.progress = lambda done, total, message: said.append(message)  # type: ignore[method-assign]
    finetune(checkpoint, tmp_path / "out", make_toy(tolerance=tolerance), 1, config, 0, heard)
    assert [numbers["decisions"] for numbers in heard.numbers] == [0.0] * len(said)
    assert len(said) >= 2, "one update is not the end of the run"
    assert all("the update was skipped: none of 2 groups has both better and worse episodes" in words for words in said)
    before, after = load_checkpoint(checkpoint)[1], load_checkpoint(tmp_path / "out")[1]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_groups_teach_where_rewards_are_compared(checkpoint: Path) -> None:
    """Negative control."""
    config = PpoConfig(**GRPO, group_return="reward", epochs=1)
    learner = make_learner(checkpoint, config, 0)
    rollouts = GroupCollector(make_toy(), learner.policy, 8, count(1), 1, explorer=learner.explorer)
    before = weights(learner)
    assert step(learner, rollouts.collect(1), config)["decisions"] == 8
    assert not unchanged(learner, before)


def test_only_groups_with_both_outcomes_are_learnt_from(checkpoint: Path) -> None:
    config = PpoConfig(**GRPO, epochs=1)
    learner = make_learner(checkpoint, config, 0)
    rollouts = GroupCollector(make_toy(length=2), learner.policy, 8, count(1), 2, explorer=learner.explorer)
    batch = rollouts.collect(1)
    np.testing.assert_array_equal(batch.features_TNF[0, :4], np.tile(batch.features_TNF[0, 0], (4, 1)))
    assert np.abs(batch.features_TNF[0, 0] - batch.features_TNF[0, 4]).max() > 0, "another group, another state"
    mixed = replace(batch, episode_success=np.array([True, False, True, True, True, True, True, True]))
    assert step(learner, mixed, config)["decisions"] == 4, "one decision is an episode here: two actions"


def test_an_empty_group_is_refused_and_so_is_a_batch_without_one(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="group 1: a group compares at least 2 episodes of one initial state"):
        parse(PpoConfig, {"advantage": "grpo", "group": 1})
    with pytest.raises(ValueError, match=r"12 environments of 2 workers .* groups of 8: set envs to a multiple of 16"):
        parse(PpoConfig, {"advantage": "grpo", "envs": 12})
    config = PpoConfig(**GRPO)
    learner = make_learner(checkpoint, config, 0)
    batch = GroupCollector(make_toy(), learner.policy, 8, count(1), 1, explorer=learner.explorer).collect(1)
    empty = replace(batch, episode_success=np.zeros(0, np.bool_))
    before = weights(learner)
    with pytest.raises(NothingToCompareError, match="none of 0 groups"):
        step(learner, empty, config)
    assert unchanged(learner, before)


@pytest.mark.parametrize("tolerance", [0.0, 1e9], ids=["all failures", "all successes"])
@pytest.mark.parametrize("constant", [False, True], ids=["rewards differ", "rewards are equal"])
def test_ppo_goes_on_when_all_episodes_end_alike(checkpoint: Path, tolerance: float, constant: bool) -> None:
    config = PpoConfig(epochs=2)
    learner = make_learner(checkpoint, config, 0)
    batch = Collector(make_toy(tolerance=tolerance), learner.policy, 4, count(1), 1).collect(8)
    assert set(batch.episode_success) == {tolerance > 0}
    if constant:
        batch = replace(batch, reward_TN=np.full_like(batch.reward_TN, float(tolerance > 0)))
    numbers = step(learner, batch, config)
    assert all(np.isfinite(value) for value in numbers.values()), numbers
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(learner).values())


@pytest.mark.slow
def test_a_worker_that_is_killed_in_a_rollout_ends_the_run_in_words(checkpoint: Path, tmp_path: Path) -> None:
    config = PpoConfig(envs=4, workers=2, decisions=5, env_steps=10**6)
    heard = Heard()
    first = heard.metrics

    def killing(**values: float) -> None:
        """Once the first update is through, whatever the second worker does then."""
        first(**values)
        threading.Timer(0.05, _kill, ("rollout-1",)).start()

    heard.metrics = killing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=r"a rollout worker died .*'rollout-1': -9"):
        finetune(checkpoint, tmp_path / "out", make_toy(length=1000, slow_s=0.01), 1000, config, 0, heard)
    assert not (tmp_path / "out").exists(), "nothing half-learnt is left as if it were a result"
    assert multiprocessing.active_children() == []


def _kill(name: str) -> None:
    for process in multiprocessing.active_children():
        if process.name == name and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)


def test_choices_that_do_not_go_together_are_refused_in_words() -> None:
    for values, words in (
        ({"noise": "flow-noise"}, "'flow-noise' applies to every denoise step: set steps to 'all'"),
        ({"reduction": "mean_steps"}, "'mean_steps' needs a density of each step: set steps to 'all'"),
        ({"entropy_weight": 0.1}, "noise 'flow-sde' is not learned, it has no entropy"),
        ({"noise": "cps", "noise_level": 1.5}, "noise_level 1.5 must be at most 1"),
        ({"noise": "cps", "denoise_steps": 1}, "zero in the last denoise step"),
        ({"std_low": 0.2}, "std_low 0.2 must be below std_high 0.16"),
        ({"dual_clip": 1.0}, "'dual_clip' must be greater than 1, got 1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            parse(PpoConfig, values)


def test_a_checkpoint_that_does_not_fit_the_choice_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="execute_horizon 3 is beyond the horizon of 2"):
        make_learner(checkpoint, PpoConfig(execute_horizon=3), 0)
    told = save_toy(tmp_path / "told", critic=True)
    with pytest.raises(ValueError, match=r"with critic 'expert'; remove its critic\.safetensors to train a new one"):
        make_learner(told, PpoConfig(critic="expert"), 0)
    single = save_toy(tmp_path / "single", denoise_steps=1)
    with pytest.raises(ValueError, match="zero in the last denoise step"):
        make_learner(single, PpoConfig(noise="cps"), 0)
    with pytest.raises(ValueError, match="there are no demonstrations"):
        finetune(checkpoint, tmp_path / "out", make_toy(), 1, PpoConfig(imitation_weight=0.1), 0, Heard())


def test_the_noise_net_goes_on_from_run_to_run(checkpoint: Path, tmp_path: Path) -> None:
    """It lies in the checkpoint, counts for its version, and what is served explores at the level it had before."""
    noisy: dict[str, Any] = {"noise": "flow-noise", "steps": "all", "reduction": "mean_steps"}
    config = PpoConfig(**noisy, env_steps=40, envs=4, workers=1, decisions=8, noise_learning_rate=1e-2, noise_level=0.3)
    version = finetune(checkpoint, tmp_path / "out", make_toy(), 1, config, 0, Heard())
    learner = make_learner(tmp_path / "out", config, 1)
    fresh = make_learner(checkpoint, config, 1)
    assert learner.explorer.net is not None
    assert fresh.explorer.net is not None
    again = make_learner(tmp_path / "out", config, 2).explorer.net
    assert again is not None
    same = zip(learner.explorer.net.parameters(), again.parameters())
    assert all(torch.equal(one, other) for one, other in same), "read, not drawn"
    other = zip(learner.explorer.net.parameters(), fresh.explorer.net.parameters())
    assert not any(torch.equal(one, two) for one, two in other)
    assert learner.policy.version == version
    assert load_checkpoint(tmp_path / "out")[0].noise_level == load_checkpoint(checkpoint)[0].noise_level
    (tmp_path / "out" / "noise_net.safetensors").unlink()
    assert make_learner(tmp_path / "out", config, 1).policy.version != version
