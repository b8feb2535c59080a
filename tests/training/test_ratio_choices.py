"""Whatever is chosen, weights that have not changed give a ratio of 1 at the first minibatch."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_arm import make_toy, save_toy

from pirl_server.config.training import PpoConfig
from pirl_server.training.rollout.actor import load_weights, set_up
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector, GroupCollector
from pirl_server.training.rollout.explorer import Explorer
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update import log_prob, update
from pirl_server.training.sim_rl.update_batch import prepare

CLOSE = 2e-5
FAMILIES = ("pi0", "smolvla")
ALL_STEPS = [{"steps": "all", "reduction": reduction} for reduction in ("sum", "mean_steps", "per_step")]
SAMPLERS: list[dict[str, Any]] = [
    *({"index": index} for index in ("sample", "stratified", "shared")),
    {"schedule": "regular"},
    {"noise": "cps"},
    {"noise": "cps", "index": "stratified", "denoise_steps": 2},
    *ALL_STEPS,
    {"steps": "all", "schedule": "regular", "denoise_steps": 1},
    {"noise": "cps", "steps": "all"},
    *({"noise": "flow-noise"} | each for each in ALL_STEPS),
]
CRITICS: list[dict[str, Any]] = [{"critic": "state"}, {"critic": "expert"}, {"critic": "vlm"}, {"advantage": "grpo"}]
PARTS: list[dict[str, Any]] = [
    {"vlm": vlm, "expert": expert} for vlm in ("frozen", "lora", "train") for expert in ("train", "lora")
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    """Of each family without and with cameras; chunks are executed in part."""
    folder = tmp_path_factory.mktemp("choices")
    return {
        (family, sees): save_toy(folder / f"{family} {sees}", execute_horizon=1, sees=sees, family=family)
        for family in FAMILIES
        for sees in (False, True)
    }


def config(**choices: Any) -> PpoConfig:
    return PpoConfig(**({"envs": 4, "workers": 1, "group": 2, "group_return": "reward", "epochs": 1} | choices))


def spoil(learner: Learner) -> None:
    """Change one weight of the expert by 1 %: its largest output weight."""
    weight = learner.policy.model.action_out_proj.weight.data
    weight.view(-1)[weight.abs().argmax()] *= 1.01


def rollout(checkpoint: Path, learner: Learner, chosen: PpoConfig, sees: bool) -> DecisionBatch:
    """As a worker makes it: its own copy of the policy, the learner's weights, and over the pipe as bytes."""
    policy, net = set_up(checkpoint, chosen)
    explorer = Explorer(policy, chosen, net)
    load_weights(explorer, learner.weights())
    kind = GroupCollector if chosen.advantage == "grpo" else Collector
    collector = kind(make_toy(length=3, sees=sees), policy, 4, count(1), 3, explorer=explorer)
    batch = collector.collect(2 if chosen.advantage == "grpo" else 6)
    collector.close()
    return DecisionBatch.from_bytes(batch.to_bytes())


def worst(learner: Learner, batch: DecisionBatch, chosen: PpoConfig) -> float:
    """Largest difference between logged and recomputed densities, of all decisions that are learnt from."""
    decisions = prepare(learner, batch, chosen)
    assert len(decisions) > 0
    return float((log_prob(learner, decisions)[0] - decisions.old_log_prob).detach().abs().max())


def check(checkpoint: Path, chosen: PpoConfig, sees: bool) -> dict[str, float]:
    """The property, its negative control, and the numbers of an update."""
    learner = make_learner(checkpoint, chosen, 0)
    spoil(learner)  # what the workers hold is not what lies in the checkpoint
    batch = rollout(checkpoint, learner, chosen, sees)
    assert worst(learner, batch, chosen) < CLOSE
    numbers = update(learner, batch, chosen, torch.Generator().manual_seed(0), train_actor=True)
    assert numbers["first_log_ratio"] < CLOSE
    assert numbers["actor_steps"] >= 1
    assert all(np.isfinite(value) for value in numbers.values()), numbers
    changed = make_learner(checkpoint, chosen, 0)  # negative control: without the spoiled weight
    assert worst(changed, batch, chosen) > 5 * CLOSE
    return numbers


@pytest.mark.parametrize("critic", CRITICS, ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_every_sampler_with_every_critic(
    checkpoints: dict[tuple[str, bool], Path], sampler: dict[str, Any], critic: dict[str, Any]
) -> None:
    numbers = check(checkpoints["pi0", False], config(**sampler, **critic), sees=False)
    steps = sampler.get("denoise_steps", 4)
    silent = sampler.get("noise") == "cps"
    last = [name for name in numbers if name.startswith(f"sigma_k{steps - 1}_")]
    assert bool(last) or silent
    assert ("explained_variance" in numbers) == ("advantage" not in critic)


@pytest.mark.parametrize("critic", CRITICS[1:3], ids=str)
@pytest.mark.parametrize("sampler", [{}, {"noise": "flow-noise", "steps": "all"}], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_with_cameras(
    checkpoints: dict[tuple[str, bool], Path], family: str, sampler: dict[str, Any], critic: dict[str, Any]
) -> None:
    check(checkpoints[family, True], config(**sampler, **critic), sees=True)


@pytest.mark.parametrize("sees", [False, True])
@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_part_learns(
    checkpoints: dict[tuple[str, bool], Path], family: str, parts: dict[str, Any], sees: bool
) -> None:
    """Also that it learns, and nothing else: workers are told merged adapters."""
    chosen = config(**parts, actor_learning_rate=1e-3)
    checkpoint = checkpoints[family, sees]
    check(checkpoint, chosen, sees)
    learner = make_learner(checkpoint, chosen, 0)
    before = {name: tensor.clone() for name, tensor in learner.policy.model.state_dict().items()}
    batch = rollout(checkpoint, learner, chosen, sees)
    for number in range(2):  # what an adapter puts down moves once what it puts up is not 0
        update(learner, batch, chosen, torch.Generator().manual_seed(number), train_actor=True)
    after = learner.policy.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    learns = {name for name, _ in learner.actor()}
    assert moved
    assert moved <= learns
    towers = {name.split(".")[0] for name in moved}
    assert ("language" in towers) == (parts["vlm"] != "frozen")
    assert "expert" in towers
    adapters = [name for name in moved if "lora_" in name]
    assert bool(adapters) == ("lora" in parts.values())


def test_the_state_in_the_batch_is_read_again(checkpoints: dict[tuple[str, bool], Path]) -> None:
    """Negative control for V_expert: its batch keeps states, and others give another density."""
    chosen = config(critic="expert")
    learner = make_learner(checkpoints["pi0", False], chosen, 0)
    batch = rollout(checkpoints["pi0", False], learner, chosen, sees=False)
    assert batch.state_TNS is not None
    batch.state_TNS[:] = batch.state_TNS[::-1].copy()
    assert worst(learner, batch, chosen) > 10 * CLOSE


def test_annealed_noise_reaches_whoever_draws(checkpoints: dict[tuple[str, bool], Path]) -> None:
    """The level is the card's, on both sides; one that was not passed on is seen."""
    chosen = config()
    learner = make_learner(checkpoints["pi0", False], chosen, 0)
    batch = rollout(checkpoints["pi0", False], learner, chosen, sees=False)
    learner.policy.card = replace(learner.policy.card, noise_level=0.4)
    assert worst(learner, batch, chosen) > 0.05
