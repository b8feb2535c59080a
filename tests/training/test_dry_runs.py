"""What reached no arm teaches nobody: dry runs in a log, for both learners, the reader below them and the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from toy_arm import Heard, save_toy, toy_card, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_server import commands
from pirl_server.config.training import EpisodesConfig, SftConfig
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.supervised.sft import sft_episodes

AWR = EpisodesConfig(steps=3, batch_size=8, value_steps=3)
SFT = SftConfig(source="episodes", steps=3, batch_size=8)
REAL = [episode(n, n % 2 == 0, GOOD if n % 2 == 0 else BAD) for n in range(12)]
DRY = [episode(100 + n, n % 2 == 0, BAD, dry_run=True) for n in range(12)]

Learn = Callable[[Path, list[Episode], Heard], str]


def improve(folder: Path, logged: list[Episode], progress: Heard) -> str:
    return finetune_episodes(save_toy(folder / "base"), folder / "out", logged, AWR, 0, progress)


def imitate(folder: Path, logged: list[Episode], progress: Heard) -> str:
    return sft_episodes(folder / "out", toy_card(), logged, SFT, 0, progress)


@pytest.mark.parametrize(("learn", "dry_runs"), [(improve, 12), (imitate, 6)])
def test_dry_runs_change_no_bit_of_what_is_learned(tmp_path: Path, learn: Learn, dry_runs: int) -> None:
    """With them and without them the same version comes out: a content hash over all weights."""
    heard = {name: Heard() for name in ("mixed", "real", "other")}
    mixed = learn(tmp_path / "mixed", [*DRY[:5], *REAL, *DRY[5:]], heard["mixed"])
    assert mixed == learn(tmp_path / "real", REAL, heard["real"])
    as_real = [episode(100 + n, n % 2 == 0, BAD) for n in range(12)]
    assert mixed != learn(tmp_path / "other", [*as_real[:5], *REAL, *as_real[5:]], heard["other"]), "they would count"
    assert {"dry_runs_left_out": float(dry_runs)} in heard["mixed"].numbers
    assert not any("dry_runs_left_out" in numbers for numbers in heard["real"].numbers)


@pytest.mark.parametrize("learn", [improve, imitate])
def test_dry_runs_alone_are_refused_and_named(tmp_path: Path, learn: Learn) -> None:
    with pytest.raises(ValueError, match=r"no training data: each of .* is a dry run: .*dry_run:=false"):
        learn(tmp_path, DRY, Heard())
    assert not (tmp_path / "out").exists()


def test_they_do_not_make_up_the_number_that_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 labelled episodes, at least 10 are needed; 12 dry runs do not count"):
        improve(tmp_path, [*REAL[:4], *DRY], Heard())


def test_the_reader_leaves_them_out_whoever_reads() -> None:
    data = episode_windows(toy_policy(), [DRY[0], REAL[0], DRY[1], REAL[1]])
    assert data.episode.tolist() == [0] * 3 + [1] * 3


def test_the_command_leaves_them_out_and_reports_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, store = save_toy(tmp_path / "base"), EpisodeStore(tmp_path / "root" / EPISODES)
    words = ["--episodes", str(tmp_path / "root"), "--base", str(base), "--out", str(tmp_path / "out")]
    for each in DRY:
        store.write(each)
    with pytest.raises(
        ValueError, match=r"none of 12 episodes is left \(6 not labelled a success, 6 dry runs\): in a dry run"
    ):
        commands.sft([*words, "--set", "steps=3", "batch_size=8"])
    store.write(REAL[0])
    assert commands.sft([*words, "--set", "steps=3", "batch_size=8"]) == 0
    printed = capsys.readouterr()
    assert "6 of 7 episodes left out: in a dry run no action reaches the arm" in printed.err
    assert checkpoint_version(tmp_path / "out") in printed.out
