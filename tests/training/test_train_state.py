"""A run that was stopped and continued from its saved state ends with the very weights of one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from local_pool import LocalPool
from toy_arm import BEST, SCALE, Heard, ToyEnv, make_toy, save_toy, toy_card
from toy_log import BAD, GOOD, episode

from pirl_contract import Observation
from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig
from pirl_server.policy.checkpoint import load_checkpoint, load_noise_net
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.rollout.worker_pool import WorkerPool
from pirl_server.training.sim_rl.finetune import finetune
from pirl_server.training.supervised.demonstrations import demonstrate, windows_of
from pirl_server.training.supervised.sft import sft
from pirl_server.training.train_state import GENERATOR, OPTIMIZER, PARAMETER, TrainState, TrainStateFolder

SFT = SftConfig(demonstrations=2, steps=40, batch_size=8, warmup_steps=5)
PPO = PpoConfig(
    env_steps=150, envs=4, workers=1, decisions=5, warmup_updates=1, epochs=2, minibatch=8, torch_threads=1
)  # fmt: skip


def expert(observation: Observation) -> np.ndarray:
    return BEST * SCALE


def demonstrations(policy: FlowPolicy) -> ChunkDataset:
    return windows_of(policy, [demonstrate(ToyEnv(length=3), expert, seed, 0.0, 3) for seed in (1, 2)])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that a checkpoint holds."""
    _, policy, critic = load_checkpoint(folder)
    parts = {"policy": policy, "critic": critic or {}, "noise_net": load_noise_net(folder) or {}}
    return {f"{part} {name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def teach(
    out: Path, states: TrainStateFolder | None, heard: Heard, config: SftConfig = SFT, sees: bool = False, seed: int = 0
) -> None:
    sft(out, toy_card(sees=sees), make_toy(length=4, sees=sees), expert, 4, config, seed, heard, states=states)


@pytest.mark.parametrize(
    ("changes", "sees"),
    [
        ({}, False),
        ({"vlm": "lora", "expert": "lora", "ema_decay": 0.9}, False),
        ({"augment": 1.0, "draws": 2, "prefix_delay": 1, "grounding": "object_and_goal"}, True),
    ],
)
def test_supervised_training_continues_as_if_it_had_not_stopped(
    changes: dict[str, object], sees: bool, tmp_path: Path
) -> None:
    config, states = replace(SFT, **changes), TrainStateFolder(tmp_path / "state", every=10)  # type: ignore[arg-type]
    teach(tmp_path / "whole", None, whole := Heard(), config, sees)
    teach(tmp_path / "part", states, Heard(cancel_after=1), config, sees)
    saved = states.load()
    assert saved is not None
    assert saved.step == 20, "it was cancelled after step 25"
    teach(tmp_path / "rest", states, rest := Heard(), config, sees)
    assert not same(tmp_path / "whole", tmp_path / "part")
    assert same(tmp_path / "whole", tmp_path / "rest")
    assert whole.numbers == rest.numbers


def test_training_on_episodes_continues_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    base, config = save_toy(tmp_path / "base"), EpisodesConfig(steps=40, batch_size=8, value_steps=20)
    log = [episode(number, number % 2 == 0, GOOD if number % 2 == 0 else BAD) for number in range(12)]
    states = TrainStateFolder(tmp_path / "state", every=10)
    finetune_episodes(base, tmp_path / "whole", log, config, 0, Heard())
    finetune_episodes(base, tmp_path / "part", log, config, 0, Heard(cancel_after=1), states=states)
    finetune_episodes(base, tmp_path / "rest", log, config, 0, Heard(), states=states)
    assert not same(tmp_path / "whole", tmp_path / "part")
    assert same(tmp_path / "whole", tmp_path / "rest")


Explore = Callable[[Path, TrainStateFolder | None, Heard], None]


def explore(base: Path, config: PpoConfig, make_pool: type[LocalPool] | type[WorkerPool] = LocalPool) -> Explore:
    def run(out: Path, states: TrainStateFolder | None, heard: Heard) -> None:
        shown = demonstrations if config.imitation_weight else None
        finetune(base, out, make_toy(length=3, tolerance=0.8), 3, config, 3, heard, shown, make_pool, states)

    return run


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"critic": "vlm", "expert": "lora", "anneal_to": 0.2, "imitation_weight": 1.0},
        {"noise": "flow-noise", "steps": "all", "entropy_weight": 0.005, "critic": "expert"},
    ],
)
def test_rl_in_simulation_continues_as_if_it_had_not_stopped(changes: dict[str, object], tmp_path: Path) -> None:
    run = explore(save_toy(tmp_path / "base"), replace(PPO, **changes))  # type: ignore[arg-type]
    whole, stopped = (TrainStateFolder(tmp_path / name, every=2) for name in ("whole state", "state"))
    run(tmp_path / "whole", whole, whole_heard := Heard())
    run(tmp_path / "part", stopped, part := Heard(cancel_after=2))
    run(tmp_path / "rest", stopped, rest := Heard())
    assert len(whole_heard.numbers) > 3
    assert len(part.numbers) + len(rest.numbers) == len(whole_heard.numbers)
    assert [numbers["rollout_success"] for numbers in rest.numbers] == [
        numbers["rollout_success"] for numbers in whole_heard.numbers[2:]
    ]
    assert not same(tmp_path / "whole", tmp_path / "part")
    assert same(tmp_path / "whole", tmp_path / "rest")
    assert all(numbers["policy_lag"] == 0 for numbers in whole_heard.numbers)


def test_worker_processes_and_a_pool_in_this_process_make_the_same_run(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    for name, pool in (("local", LocalPool), ("workers", WorkerPool)):
        explore(base, PPO, pool)(tmp_path / name, None, Heard())  # type: ignore[arg-type]
    assert same(tmp_path / "local", tmp_path / "workers")


class Damaged(TrainStateFolder):
    """A state whose optimiser, generator or parameters are those of a fresh run."""

    kind = ""

    def load(self) -> TrainState | None:
        state = super().load()
        assert state is not None
        tensors = dict(state.tensors)
        for name in [name for name in tensors if name.startswith(self.kind)]:
            if self.kind == OPTIMIZER:
                del tensors[name]
            elif self.kind == GENERATOR:
                tensors[name] = torch.Generator().manual_seed(0).get_state()
            else:
                tensors[name] = tensors[name] + 1e-3
        return replace(state, tensors=tensors)


@pytest.mark.parametrize("kind", [OPTIMIZER, GENERATOR, PARAMETER])
def test_every_part_of_the_state_counts(kind: str, tmp_path: Path) -> None:
    """The comparison above notices a part that was not restored."""
    teach(tmp_path / "whole", None, Heard())
    teach(tmp_path / "part", TrainStateFolder(tmp_path / "state", every=10), Heard(cancel_after=1))
    damaged = Damaged(tmp_path / "state", every=10)
    object.__setattr__(damaged, "kind", kind)
    teach(tmp_path / "rest", damaged, Heard())
    assert not same(tmp_path / "whole", tmp_path / "rest")


def test_a_state_of_another_run_is_rejected(tmp_path: Path) -> None:
    states = TrainStateFolder(tmp_path / "state", every=10)
    teach(tmp_path / "out", states, Heard(cancel_after=1), replace(SFT, vlm="lora", expert="lora", lora_rank=4))
    with pytest.raises(ValueError, match="is of a run with seed 0, this run has seed 1"):
        teach(tmp_path / "out", states, Heard(), seed=1)
    with pytest.raises(ValueError, match=r"of another run: parameter '\d+' is \(4, 16\), here \(2, 16\)"):
        teach(tmp_path / "out", states, Heard(), replace(SFT, vlm="lora", expert="lora", lora_rank=2))
    lora = replace(SFT, vlm="lora", expert="lora", lora_rank=4, ema_decay=0.9)
    with pytest.raises(ValueError, match="of another run: it has no parameter average 0"):
        teach(tmp_path / "out", states, Heard(), lora)
    with pytest.raises(ValueError, match=r"of another run: here, parameter '.*' does not learn"):
        teach(tmp_path / "out", states, Heard(), replace(SFT, vlm="frozen", expert="lora", lora_rank=4))


def test_a_crash_between_the_two_files_leaves_the_last_state(tmp_path: Path) -> None:
    states = TrainStateFolder(tmp_path, every=10)
    assert states.load() is None
    teach(tmp_path / "out", states, Heard())
    saved = states.load()
    assert saved is not None
    assert sorted(path.name for path in tmp_path.glob("state*")) == ["state-40.safetensors", "state.json"]
    (tmp_path / "state-50.safetensors").write_bytes(b"half of it")
    again = states.load()
    assert again is not None
    assert again.step == 40
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in saved.tensors.items())
    values = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(values | {"tensors": "state-50.safetensors"}))
    with pytest.raises(ValueError, match=r"state.json' can't be read"):
        states.load()
