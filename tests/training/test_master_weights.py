"""A bfloat16 base learns in float32: steps far below its resolution count, and rollouts stay the same policy."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from local_pool import LocalPool
from toy_arm import BEST, INSTRUCTIONS, SCALE, Heard, make_toy, toy_card, toy_observation, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_contract import Observation
from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig
from pirl_server.model.layers.lora import DOWN, UP
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.pi0.precision import to_bfloat16, weight_dtype
from pirl_server.policy.checkpoint import StateDict, load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training import master_weights
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.rollout import actor
from pirl_server.training.rollout.collector import Collector
from pirl_server.training.rollout.worker_pool import WorkerPool
from pirl_server.training.sim_rl.finetune import finetune
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update import update
from pirl_server.training.supervised import trainable_parts
from pirl_server.training.supervised.ema import Ema
from pirl_server.training.supervised.sft import sft
from pirl_server.training.supervised.trainable_parts import freeze_and_adapt
from pirl_server.training.train_state import TrainStateFolder

CLOSE = 1e-5
PAPERS = 5e-6
"""the paper's learning rate of the actor"""
PPO = PpoConfig(
    env_steps=60, envs=4, workers=1, decisions=6, warmup_updates=0, epochs=1, minibatch=64, torch_threads=1,
    actor_learning_rate=PAPERS,
)  # fmt: skip
SFT = SftConfig(demonstrations=2, steps=10, batch_size=8, learning_rate=PAPERS, vlm="frozen")


@pytest.fixture(params=[False, True], ids=["state", "camera"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_bfloat16(tmp_path / "base", sees=request.param)


def save_bfloat16(folder: Path, sees: bool = False) -> Path:
    policy = toy_policy(sees=sees)
    save_checkpoint(folder, policy.card, to_bfloat16(policy.model).state_dict())
    return folder


@pytest.fixture
def stored_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training on the stored weights themselves, for negative controls."""
    for module in (master_weights, trainable_parts, actor):
        monkeypatch.setattr(module, "widen", lambda *parts: None)


def sees(base: Path) -> bool:
    return FlowPolicy.load(base).card.model.vision is not None


def collected(learner: Learner, base: Path, config: PpoConfig, seed: int = 1) -> dict[str, float]:
    """The numbers of one update from rollouts with the learner's weights."""
    with closing(LocalPool(make_toy(length=3, sees=sees(base)), base, 3, config=config, seed=seed)) as pool:
        batch = pool.collect(learner.weights(), config.decisions, learner.policy.card.noise_level, 0)
    return update(learner, batch, config, torch.Generator().manual_seed(0), train_actor=True)


def moved(before: StateDict, after: StateDict) -> float:
    """Share of the weights that changed."""
    changed = sum(int((after[name] != before[name]).sum()) for name in before)
    return changed / sum(tensor.numel() for tensor in before.values())


def copied(learner: Learner) -> StateDict:
    return {name: parameter.detach().clone() for name, parameter in learner.actor()}


def moved_by_ppo(base: Path, config: PpoConfig) -> float:
    learner = make_learner(base, config, 0)
    before = copied(learner)
    assert collected(learner, base, config)["actor_steps"] == 1
    narrow = {name for name, tensor in before.items() if weight_dtype(name) == torch.bfloat16}
    after = copied(learner)
    return moved({name: before[name] for name in narrow}, {name: after[name] for name in narrow})


def test_one_step_of_ppo_moves_nearly_every_weight(base: Path) -> None:
    assert moved_by_ppo(base, PPO) > 0.99


def test_bfloat16_weights_hardly_move(base: Path, stored_dtype: None) -> None:
    """Negative control."""
    assert 0 < moved_by_ppo(base, PPO) < 0.2


@pytest.mark.parametrize(
    ("vlm", "expert"), [("frozen", "train"), ("train", "train"), ("frozen", "lora"), ("lora", "lora")]
)
def test_the_first_ratio_is_1_before_and_after_a_step(base: Path, vlm: str, expert: str) -> None:
    """Also where float32 reads the keys and values of a bfloat16 half, and where adapters are merged for rollouts."""
    config = replace(PPO, vlm=vlm, expert=expert, lora_rank=2, actor_learning_rate=1e-3)  # type: ignore[arg-type]
    learner = make_learner(base, config, 0)
    for seed in (1, 2):
        numbers = collected(learner, base, config, seed)
        assert numbers["first_log_ratio"] < CLOSE
        assert numbers["actor_steps"] == 1


@pytest.mark.parametrize("critic", ["expert", "vlm"])
def test_every_critic_reads_what_a_bfloat16_base_computes(base: Path, critic: str) -> None:
    config = replace(PPO, critic=critic)  # type: ignore[arg-type]
    assert collected(make_learner(base, config, 0), base, config)["first_log_ratio"] < CLOSE


def test_the_first_ratio_of_worker_processes(tmp_path: Path) -> None:
    base = save_bfloat16(tmp_path)
    learner = make_learner(base, replace(PPO, actor_learning_rate=1e-3), 0)
    collected(learner, base, PPO)
    with closing(WorkerPool(make_toy(length=3), base, 3, config=PPO, seed=3)) as pool:
        batch = pool.collect(learner.weights(), 6, learner.policy.card.noise_level, 0)
    numbers = update(learner, batch, PPO, torch.Generator().manual_seed(0), train_actor=True)
    assert numbers["first_log_ratio"] < CLOSE


def test_rollouts_of_the_stored_weights_are_another_policy(base: Path) -> None:
    """Negative control: rounding alone is seen in the first ratio."""
    collector = Collector(make_toy(length=3, sees=sees(base)), FlowPolicy.load(base), 4, count(1), 3)
    numbers = update(make_learner(base, PPO, 0), collector.collect(6), PPO, torch.Generator(), train_actor=True)
    assert numbers["first_log_ratio"] > 100 * CLOSE


def expert(observation: Observation) -> object:
    return BEST * SCALE


def teach(base: Path, out: Path, config: SftConfig, states: TrainStateFolder | None = None, **stop: int) -> StateDict:
    """Supervised training; return the policy's weights."""
    card = toy_card(sees=sees(base))
    heard = Heard(**stop)
    sft(out, card, make_toy(length=4, sees=sees(base)), expert, 4, config, 0, heard, base, states)  # type: ignore[arg-type]
    return load_checkpoint(out)[1]


def improve(base: Path, out: Path, config: EpisodesConfig) -> StateDict:
    """Training on logged episodes; return the policy's weights."""
    log = [episode(each, each % 2 == 0, GOOD if each % 2 else BAD, sees=sees(base)) for each in range(12)]
    finetune_episodes(base, out, log, config, 0, Heard())
    return load_checkpoint(out)[1]


def moved_expert(base: Path, after: StateDict) -> float:
    """Share of the expert's narrow weights that are not the base's."""
    stored = load_checkpoint(base)[1]
    narrow = {name: each for name, each in stored.items() if name.startswith("expert.") and each.dtype != torch.float32}
    return moved(narrow, after)


@pytest.mark.parametrize(("ema", "precision"), [(None, "float32"), (0.99, "float32"), (None, "bfloat16")])
def test_one_step_on_demonstrations_or_episodes_moves_nearly_every_weight(
    base: Path, tmp_path: Path, ema: float | None, precision: str
) -> None:
    config = replace(SFT, steps=1, ema_decay=ema, precision=precision)  # type: ignore[arg-type]
    assert moved_expert(base, teach(base, tmp_path / "sft", config)) > 0.99
    logged = EpisodesConfig(steps=1, batch_size=8, value_steps=5, learning_rate=PAPERS, ema_decay=ema)
    assert moved_expert(base, improve(base, tmp_path / "logged", logged)) > 0.99


@pytest.mark.parametrize("ema", [None, 0.99])
def test_steps_on_bfloat16_weights_are_lost(base: Path, tmp_path: Path, ema: float | None, stored_dtype: None) -> None:
    """Negative control."""
    assert moved_expert(base, teach(base, tmp_path / "sft", replace(SFT, steps=1, ema_decay=ema))) < 0.2


def test_an_average_follows_steps_that_bfloat16_can_not_show() -> None:
    model = to_bfloat16(toy_policy().model)
    assert isinstance(model, Pi0)
    parameters = freeze_and_adapt(model, SFT)
    ema, start = Ema(parameters, 0.99), [each.detach().clone() for each in parameters]
    with torch.no_grad():
        for each in parameters:
            each.add_(PAPERS)
    ema.update()
    for average, before in zip(ema.average, start):
        assert average.dtype == torch.float32
        torch.testing.assert_close(average - before, torch.full_like(before, PAPERS * 9 / 11), rtol=0, atol=1e-7)


@pytest.mark.parametrize("vlm", ["train", "lora", "frozen"])
@pytest.mark.parametrize("expert", ["train", "lora", "frozen"])
def test_what_learns_is_float32_and_what_does_not_is_as_stored(vlm: str, expert: str) -> None:
    model, config = to_bfloat16(toy_policy(sees=True).model), replace(SFT, vlm=vlm, expert=expert)  # type: ignore[arg-type]
    if (vlm, expert) == ("frozen", "frozen"):
        with pytest.raises(ValueError, match="both 'frozen'"):
            freeze_and_adapt(model, config)
        return
    freeze_and_adapt(model, config)
    for name, parameter in model.named_parameters():
        learns = (vlm if name.startswith(Pi0.VLM_PARTS) else expert) != "frozen"
        assert parameter.dtype == (torch.float32 if learns else weight_dtype(name)), name
        assert learns or not name.endswith((DOWN, UP))


@pytest.mark.parametrize(("vlm", "expert"), [("frozen", "train"), ("train", "frozen"), ("lora", "lora")])
def test_saved_as_trained_or_as_the_base(base: Path, tmp_path: Path, vlm: str, expert: str) -> None:
    """Frozen halves are the base's bit by bit; a half in float32 beside one in bfloat16 is served."""
    config = replace(SFT, vlm=vlm, expert=expert, lora_rank=2, learning_rate=1e-3)  # type: ignore[arg-type]
    stored, trained = load_checkpoint(base)[1], teach(base, tmp_path / "float32", config)
    for name, tensor in trained.items():
        if (vlm if name.startswith(Pi0.VLM_PARTS) else expert) == "frozen":
            assert tensor.dtype == stored[name].dtype
            assert torch.equal(tensor, stored[name])
        else:
            assert tensor.dtype == torch.float32
    rounded = teach(base, tmp_path / "base dtype", replace(config, saved_dtype="base"))
    assert all(torch.equal(rounded[name], trained[name].to(each.dtype)) for name, each in stored.items())
    assert {name: each.dtype for name, each in rounded.items()} == {name: each.dtype for name, each in stored.items()}
    for folder in ("float32", "base dtype"):
        policy = FlowPolicy.load(tmp_path / folder)
        observation = replace(toy_observation(sees=sees(base)), instruction=INSTRUCTIONS[0])
        assert policy.sample(observation, explore=True, seed=0).actions.shape == (2, 2)


def test_the_lineage_says_what_rounding_left(tmp_path: Path) -> None:
    base = save_bfloat16(tmp_path / "base")
    teach(base, tmp_path / "float32", SFT)
    teach(base, tmp_path / "rounded", replace(SFT, steps=1, saved_dtype="base"))
    improve(base, tmp_path / "logged", EpisodesConfig(steps=1, value_steps=5, learning_rate=PAPERS, saved_dtype="base"))
    finetune(base, tmp_path / "rl", make_toy(length=3), 3, replace(PPO, saved_dtype="base"), 0, Heard())
    said = {
        name: FlowPolicy.load(tmp_path / name).card.lineage["saved_dtype"]
        for name in ("float32", "rounded", "logged", "rl")
    }
    assert said.pop("float32") == "float32"
    for words in said.values():
        found = re.fullmatch(r"base, ([0-9.]+)% of the trained weights differ from the base's", words)
        assert found, words
        assert float(found[1]) < 30


@pytest.mark.parametrize(
    "changes", [{}, {"vlm": "lora", "expert": "lora", "ema_decay": 0.9, "saved_dtype": "base"}, {"vlm": "train"}]
)
def test_a_run_from_a_bfloat16_base_continues_from_its_float32_state(
    base: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    config, states = replace(SFT, steps=40, **changes), TrainStateFolder(tmp_path / "state", every=10)  # type: ignore[arg-type]
    whole = teach(base, tmp_path / "whole", config)
    part = teach(base, tmp_path / "part", config, states, cancel_after=1)
    saved = states.load()
    assert saved is not None
    assert {each.dtype for name, each in saved.tensors.items() if "generator" not in name} == {torch.float32}
    rest = teach(base, tmp_path / "rest", config, states)
    assert any(not torch.equal(whole[name], part[name]) for name in whole)
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


@pytest.mark.parametrize("expert", ["train", "lora"])
def test_rl_from_a_bfloat16_base_continues_from_its_float32_state(base: Path, tmp_path: Path, expert: str) -> None:
    config = replace(PPO, env_steps=150, expert=expert)  # type: ignore[arg-type]

    def run(out: str, states: str, **stop: int) -> StateDict:
        make, kept = make_toy(length=3, sees=sees(base)), TrainStateFolder(tmp_path / states, every=2)
        finetune(base, tmp_path / out, make, 3, config, 3, Heard(**stop), make_pool=LocalPool, states=kept)
        return load_checkpoint(tmp_path / out)[1]

    whole, part = run("whole", "whole state"), run("part", "state", cancel_after=2)
    rest = run("rest", "state")
    assert any(not torch.equal(whole[name], part[name]) for name in whole)
    assert all(torch.equal(whole[name], rest[name]) for name in whole)
