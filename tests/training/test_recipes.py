"""How a supervised run is wired, and which logged episodes count for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toy_arm import CONTRACT, INSTRUCTIONS, Heard, make_toy, save_toy
from toy_log import BAD, GOOD, episode

from pirl_contract import Contract, Env
from pirl_server.config.jobs import Sft
from pirl_server.config.training import PpoConfig, SftConfig
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES
from pirl_server.policy.checkpoint import load_card
from pirl_server.training.recipes import Simulation, logged_episodes, sim_rl_config, successes, train_sft
from pirl_server.training.supervised.demonstrations import Expert

OTHER = "another task"
SHORT = SftConfig(source="episodes", steps=2, batch_size=4)


class Toy:
    """The simulator of one task, whose only instruction is the first."""

    def contract(self, task_id: str) -> Contract:
        return CONTRACT

    def instructions(self, task_id: str) -> tuple[str, ...]:
        return INSTRUCTIONS[:1]

    def max_steps(self, task_id: str) -> int:
        return 1

    def expert(self, task_id: str) -> Expert:
        raise ValueError(f"'{task_id}' has no scripted expert")

    def fast_env(self, task_id: str, sees: bool) -> Env:
        return make_toy()()


TOY: Simulation = Toy()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = EpisodeStore(tmp_path / "root" / EPISODES)
    for each in (
        episode(1, True, GOOD),
        episode(2, False, BAD),
        episode(3, None, BAD),
        episode(4, True, GOOD, instruction=OTHER),
        episode(5, True, GOOD, contract=replace(CONTRACT, robot="other-arm")),
    ):
        store.write(each)
    return tmp_path / "root"


def test_episodes_count_by_robot_and_instruction_and_successes_by_label_too(root: Path) -> None:
    def numbers(episodes: object) -> list[int]:
        return sorted(int(each.info.id, 16) for each in episodes)  # type: ignore[attr-defined]

    assert numbers(logged_episodes(root, CONTRACT, INSTRUCTIONS[:1], Heard())) == [1, 2, 3]
    assert numbers(logged_episodes(root, CONTRACT, None, Heard())) == [1, 2, 3, 4]
    assert numbers(successes(root, CONTRACT, INSTRUCTIONS[:1], Heard())) == [1]
    assert numbers(successes(root, CONTRACT, None, heard := Heard())) == [1, 4]
    assert heard.messages == []
    with pytest.raises(ValueError, match=r"none of 5 episodes in .* is a success"):
        successes(root, CONTRACT, ("never said",), Heard())


def test_damaged_episodes_are_left_out_and_reported(root: Path) -> None:
    store = EpisodeStore(root / EPISODES)
    damaged, torn = (store.root / Path(store.summary(f"{number:032x}").path).parent for number in (2, 4))
    data = bytearray((path := next((damaged / "episode.zarr/call/state/c").rglob("0/0"))).read_bytes())
    data[5] ^= 8
    path.write_bytes(data)
    (torn / "episode.zarr" / "zarr.json").unlink()
    heard = Heard()
    found = logged_episodes(root, CONTRACT, None, heard)
    assert sorted(int(each.info.id, 16) for each in found) == [1, 3]
    assert heard.numbers == [{"damaged_episodes_left_out": 2.0}]
    missing, changed = heard.messages
    assert ("zarr.json' is missing" in missing, "SHA-256" in changed) == (True, True)
    assert [each.info.id for each in successes(root, CONTRACT, None, Heard())] == [f"{1:032x}"]


def test_a_run_on_episodes_learns_the_instructions_of_its_task_or_with_any_all(root: Path, tmp_path: Path) -> None:
    base, spec = save_toy(tmp_path / "base"), Sft(task="toy", config=SHORT)
    train_sft(spec, tmp_path / "one", Heard(), TOY, base=base, root=root)
    assert load_card(tmp_path / "one").instructions == INSTRUCTIONS
    train_sft(spec, tmp_path / "any", Heard(), TOY, base=base, root=root, any_instruction=True)
    assert load_card(tmp_path / "any").instructions == (*INSTRUCTIONS, OTHER)


def test_what_a_run_lacks_is_refused(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    with pytest.raises(ValueError, match="needs the --root of a server: give it with --episodes"):
        train_sft(Sft(task="toy", config=SHORT), tmp_path / "out", Heard(), TOY, base=base)
    with pytest.raises(ValueError, match="'toy' has no scripted expert"):
        train_sft(Sft(task="toy"), tmp_path / "out", Heard(), TOY, base=base)
    assert not (tmp_path / "out").exists()


def test_only_a_base_with_a_camera_changes_what_the_critic_reads(tmp_path: Path) -> None:
    assert sim_rl_config(PpoConfig(), save_toy(tmp_path / "base")) == PpoConfig()
    seeing = save_toy(tmp_path / "seeing", sees=True)
    assert sim_rl_config(PpoConfig(), seeing) == PpoConfig(critic_features="tabletop_relative")
    given = PpoConfig(critic_features="policy")
    assert sim_rl_config(given, seeing) == given
