"""Filtered behaviour cloning: what succeeded is imitated, through the library, the command and the job's config."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_arm import CONTRACT, INSTRUCTIONS, Heard, save_toy, toy_card, toy_observation
from toy_log import BAD, GOOD, episode

from pirl_server import commands
from pirl_server.config.training import SftConfig
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.supervised.sft import sft_episodes

CONFIG = SftConfig(source="episodes", steps=100, batch_size=32, learning_rate=3e-3)


def log(sees: bool = False) -> list[Episode]:
    """Successes execute GOOD; failures, and what nobody labelled, BAD."""
    ends: list[bool | None] = [True, False, None]
    return [episode(n, ends[n % 3], GOOD if n % 3 == 0 else BAD, sees=sees) for n in range(12)]


def mean_action(folder: Path, sees: bool = False) -> float:
    policy = FlowPolicy.load(folder)
    observation = toy_observation(sees=sees)
    return float(np.mean([policy.sample(observation, explore=False, seed=seed).chain[-1] for seed in range(8)]))


@pytest.mark.parametrize("sees", [False, True])
def test_successes_are_imitated_and_nothing_else(tmp_path: Path, sees: bool) -> None:
    version = sft_episodes(tmp_path / "out", toy_card(sees=sees), log(sees), CONFIG, 0, Heard())
    made = FlowPolicy.load(tmp_path / "out")
    assert made.version == version
    assert "'source': 'episodes'" in made.card.lineage["config"]
    assert mean_action(tmp_path / "out", sees) == pytest.approx(0.8, abs=0.2)


def test_a_base_is_gone_on_from_and_learns_new_sentences(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base", seed=5)
    logged = [episode(n, True, GOOD, instruction="a third way to say it") for n in range(3)]
    sft_episodes(tmp_path / "out", toy_card(), logged, CONFIG, 0, Heard(), base)
    card = FlowPolicy.load(tmp_path / "out").card
    assert card.lineage["parent"] == checkpoint_version(base)
    assert card.instructions == (*INSTRUCTIONS, "a third way to say it")


def test_adapters_leave_the_checkpoint_s_names_alone(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base", seed=5)
    config = SftConfig(source="episodes", steps=3, batch_size=8, vlm="lora", expert="lora", lora_rank=2, ema_decay=0.9)
    sft_episodes(tmp_path / "out", toy_card(), log(), config, 0, Heard(), base)
    made, before = (FlowPolicy.load(tmp_path / name).model.state_dict() for name in ("out", "base"))
    assert any(not torch.equal(made[name], before[name]) for name in made if name.endswith("qkv_proj.weight"))


@pytest.mark.parametrize("logged", [[], [episode(0, False, BAD), episode(1, None, BAD)]])
def test_a_log_without_a_success_is_refused(tmp_path: Path, logged: list[Episode]) -> None:
    with pytest.raises(ValueError, match="no labelled episode"):
        sft_episodes(tmp_path / "out", toy_card(), logged, CONFIG, 0, Heard())
    assert not (tmp_path / "out").exists()


def test_the_command_learns_from_a_server_s_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, store = save_toy(tmp_path / "base"), EpisodeStore(tmp_path / "root" / EPISODES)
    for each in log():
        store.write(each)
    out = tmp_path / "out"
    words = ["--episodes", str(tmp_path / "root"), "--base", str(base), "--out", str(out)]
    settings = ["--set", "steps=100", "batch_size=32", "learning_rate=3e-3"]
    assert commands.sft([*words, *settings]) == 0
    assert checkpoint_version(out) in capsys.readouterr().out
    assert mean_action(out) == pytest.approx(0.8, abs=0.2)


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    words = ["--base", str(base), "--out", str(tmp_path / "out"), "--episodes"]
    with pytest.raises(ValueError, match="keeps no episodes: give the --root of a server"):
        commands.sft([*words, str(tmp_path / "nowhere")])
    assert not (tmp_path / "nowhere").exists()
    EpisodeStore(tmp_path / "root" / EPISODES).write(episode(0, False, BAD, contract=CONTRACT))
    with pytest.raises(ValueError, match=r"none of 1 episodes is left \(1 not labelled a success\)"):
        commands.sft([*words, str(tmp_path / "root")])
