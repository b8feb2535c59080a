"""How a run on logged episodes is wired: which count, what is reported, and what a result may know afterwards."""

from __future__ import annotations

import json
import shutil
import weakref
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explored_log import log_of
from toy_arm import CONTRACT, INSTRUCTIONS, Heard, make_toy, save_toy
from toy_log import BAD, GOOD, episode

from pirl_contract import Alteration, Contract, ControlSource, Env, Field
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.jobs import FinetuneEpisodes, Sft
from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES
from pirl_server.policy.checkpoint import checkpoint_version, load_card
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_log import EpisodeLog
from pirl_server.training.episode_report import Densities, report
from pirl_server.training.episode_selection import Selected
from pirl_server.training.recipes import (
    EpisodeData,
    Simulation,
    episode_data,
    planned,
    train_on_episodes,
    train_sft,
)
from pirl_server.training.supervised.demonstrations import Expert

OTHER = "wipe the table"
SHORT = SftConfig(source="episodes", steps=2, batch_size=4)
AWR = EpisodesConfig(steps=2, batch_size=4, value_steps=2, min_episodes=2)
NOW = datetime.now(timezone.utc)


class Toy:
    """The simulator of one task, which has no expert."""

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


def published(number: int, success: bool | None, days: float = 0.0, **changes: Any) -> Episode:
    """One that was published so many days ago; `changes` are of its info."""
    made = episode(number, success, GOOD if success else BAD)
    created = (NOW - timedelta(days=days)).isoformat(timespec="milliseconds")
    return replace(made, info=replace(made.info, created=created, **changes))


def stored(folder: Path, *episodes: Episode) -> Path:
    store = EpisodeStore(folder / "root" / EPISODES)
    for each in episodes:
        store.write(each)
    return folder / "root"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only read; a test that changes it takes a copy."""
    explored = published(7, True, 4, policy_versions=("v2",), robot_id="arm-2")
    some = np.where(np.arange(3) == 0, 1, -1).astype(np.int32)
    return stored(
        tmp_path_factory.mktemp("stored"),
        published(1, True, 1),
        published(2, False, 2),
        published(3, None, 3),
        published(4, True, 0.5, instruction=OTHER, label_source="sim"),
        published(5, True, contract=replace(CONTRACT, robot="other-arm")),
        published(6, True, dry_run=True),
        replace(explored, calls=replace(explored.calls, sde_index=some)),
    )


def data(root: Path, base: Path | None, kind: type = FinetuneEpisodes, **spec: Any) -> EpisodeData:
    made = kind(**{"task": OTHER, "config": AWR if kind is FinetuneEpisodes else SHORT} | spec)
    return episode_data(made, root, Heard(), base)


def numbers(found: EpisodeData) -> list[int]:
    return [int(each.info.id, 16) for each in found.selected.log.facts]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({}, [1, 2, 3, 7]),
        ({"label": "labelled"}, [1, 2, 7]),
        ({"label": "success"}, [1, 7]),
        ({"label": "failure"}, [2]),
        ({"label": "unlabelled"}, [3]),
        ({"versions": ("v2",)}, [7]),
        ({"versions": ("v1", "v2")}, [1, 2, 3, 7]),
        ({"robots": ("arm",)}, [1, 2, 3]),
        ({"mode": "explore"}, [7]),
        ({"mode": "greedy"}, [1, 2, 3]),
        ({"max_age_days": 2.5}, [1, 2]),
        ({"limit": 2}, [1, 2]),
        ({"label_sources": ("sim",)}, []),
        ({"instructions": INSTRUCTIONS[1:]}, []),
        ({"source": "human"}, []),
        ({"source": "policy", "limit": 1}, [1]),
    ],
)
def test_a_selection_takes_what_satisfies_every_field_newest_first(
    root: Path, tmp_path: Path, select: dict[str, Any], expected: list[int]
) -> None:
    found = data(root, save_toy(tmp_path / "base"), select=EpisodeSelection(**select))
    assert numbers(found) == expected
    assert found.report.episodes == len(expected)
    assert sum(found.report.left_out.values()) == 7 - len(expected), "each of the others is counted"


def test_what_a_human_drove_is_selected_by_its_steps(tmp_path: Path) -> None:
    made = published(1, True)
    driven = replace(made, steps=replace(made.steps, source=np.full(6, ControlSource.HUMAN, np.uint8)))
    root, base = stored(tmp_path, driven, published(2, False, 1)), save_toy(tmp_path / "base")
    assert numbers(data(root, base, select=EpisodeSelection(source="human"))) == [1]
    assert numbers(data(root, base, select=EpisodeSelection(source="policy"))) == [2]


def test_a_robot_s_own_task_needs_no_simulator_and_its_sentences_are_its_episodes(root: Path, tmp_path: Path) -> None:
    base, spec = save_toy(tmp_path / "base"), Sft(task=OTHER, config=SHORT)
    found = episode_data(spec, root, Heard(), base)
    assert numbers(found) == [4, 1, 7], "successes of any sentence"
    train_on_episodes(spec, found, tmp_path / "out", Heard(), base)
    card = load_card(tmp_path / "out")
    assert card.instructions == (*INSTRUCTIONS, OTHER)
    assert card.task == OTHER


def test_without_a_base_the_robot_is_that_of_the_episodes(tmp_path: Path) -> None:
    panda = replace(
        CONTRACT,
        robot="my-panda",
        state=tuple(Field(f"s{n}" if not 18 <= n < 21 else f"tcp.{'xyz'[n - 18]}", "1") for n in range(35)),
    )
    made = published(1, True)
    wide = np.zeros((6, 35), np.float32)
    own = replace(
        made,
        info=replace(made.info, contract=panda, instruction=OTHER),
        calls=replace(made.calls, state=wide[:3]),
        steps=replace(made.steps, state=wide),
    )
    spec, root = Sft(task=OTHER, config=SHORT), stored(tmp_path, own)
    train_on_episodes(spec, episode_data(spec, root, Heard(), None), tmp_path / "out", Heard(), None)
    card = load_card(tmp_path / "out")
    assert (card.contract, card.instructions, card.task) == (panda, (OTHER,), OTHER)
    strange = stored(tmp_path / "strange", published(1, True))
    with pytest.raises(ValueError, match="robot 'toy' has another state; give a base that was imported for it"):
        episode_data(spec, strange, Heard(), None)
    with pytest.raises(ValueError, match="no successful episode says what the robot is: log one, or give a base"):
        episode_data(spec, stored(tmp_path / "failed", published(1, False)), Heard(), None)


def test_a_sentence_that_is_new_to_the_base_is_learnt_only_on_demand(tmp_path: Path) -> None:
    log = [published(n, n % 2 == 0, instruction=OTHER if n > 3 else INSTRUCTIONS[0]) for n in range(8)]
    root, base = stored(tmp_path, *log), save_toy(tmp_path / "base")
    found = data(root, base)
    assert sorted(numbers(found)) == [0, 1, 2, 3]
    assert found.report.left_out == {"with an instruction that is new to the policy": 4}
    assert any("new_instructions" in each for each in found.report.warnings)
    with pytest.raises(ValueError, match=f"instruction '{OTHER}' is not one .* set new_instructions to learn it"):
        data(root, base, select=EpisodeSelection(instructions=(OTHER,)))
    spec = FinetuneEpisodes(task=OTHER, config=AWR, new_instructions=True)
    widened = episode_data(spec, root, Heard(), base)
    assert widened.report.episodes == 8
    train_on_episodes(spec, widened, tmp_path / "out", Heard(), base)
    assert load_card(tmp_path / "out").instructions == (*INSTRUCTIONS, OTHER)


def test_lineage_names_the_episodes_and_changes_with_each_and_with_its_label(root: Path, tmp_path: Path) -> None:
    base, root = save_toy(tmp_path / "base"), Path(shutil.copytree(root, tmp_path / "root"))

    def lineage(name: str, **select: Any) -> dict[str, str]:
        spec = FinetuneEpisodes(task=OTHER, config=AWR, select=EpisodeSelection(**select))
        train_on_episodes(spec, episode_data(spec, root, Heard(), base), tmp_path / name, Heard(), base)
        return dict(load_card(tmp_path / name).lineage)

    first = lineage("first")
    assert (first["episodes"], first["task"], first["parent"]) == ("3", OTHER, checkpoint_version(base))
    assert json.loads(first["select"])["label"] == "any"
    assert first["episodes_created"].count(" to ") == 1
    assert lineage("again")["episodes_sha256"] == first["episodes_sha256"]
    assert lineage("fewer", limit=2)["episodes_sha256"] != first["episodes_sha256"]
    EpisodeStore(root / EPISODES).label(f"{7:032x}", False, "operator")
    assert lineage("relabelled")["episodes_sha256"] != first["episodes_sha256"]
    same = data(root, base, select=EpisodeSelection(label="labelled")).report
    assert same.sha256 == lineage("same", label="labelled")["episodes_sha256"], "of what was learnt from"


def test_the_report_counts_what_is_there(root: Path, tmp_path: Path) -> None:
    found = data(root, save_toy(tmp_path / "base"), select=EpisodeSelection(label="labelled")).report
    assert (found.outcomes, found.versions, found.robots) == (
        {"success": 2, "failure": 1}, {"v1": 2, "v2": 1}, {"arm": 2, "arm-2": 1},
    )  # fmt: skip
    assert (found.modes, found.label_sources) == ({"greedy": 2, "explore": 1}, {"operator": 3})
    assert found.left_out == {
        "of another contract": 1, "with an instruction that is new to the policy": 1, "without a label": 1,
        "dry runs": 1,
    }  # fmt: skip
    assert (found.steps, found.decisions, found.densities) == (18, 9, 1)
    assert found.of_other_versions == 3, "of none of them is the base"
    assert [int(each, 16) for each in found.ids] == [1, 2, 7]
    assert found.oldest < found.newest
    assert found.methods["advantage_weighted"] == "yes"
    assert found.methods["ppo_logged"].startswith("no episode of the base or a version shortly before it")
    assert found.methods["dagger"] == "no human took over"
    assert found.methods["auto"].startswith("filtered_bc: 2 successes, 1 failures")


def test_the_report_says_what_may_not_be_learnt_and_who_drove(tmp_path: Path) -> None:
    made = published(1, True)
    source = np.array([0, 0, 2, 1, 1, 0], np.uint8)
    bits = np.array([0, int(Alteration.EMERGENCY_STOP), 0, 0, 0, 0], np.uint32)
    driven = replace(made, steps=replace(made.steps, source=source, alterations=bits))
    root = stored(tmp_path, driven, published(2, False, 1))
    found = data(root, save_toy(tmp_path / "base")).report
    assert found.steps_masked == {"emergency stop": 1, "hold": 1}
    assert (found.human_steps, found.takeovers, found.steps_before_takeover) == (2, 1, 1)
    assert found.human_share == pytest.approx(2 / 10)
    assert found.methods["dagger"] == "yes"


def warnings(log: list[Episode]) -> tuple[str, ...]:
    return report(Selected(EpisodeLog.of(log), {}, ()), "v1", 10, Densities()).warnings


def lively(number: int, success: bool, **changes: Any) -> Episode:
    """With a new state after each step."""
    made = published(number, success, **changes)
    states = np.random.default_rng(number).normal(size=(6, 21)).astype(np.float32)
    return replace(made, steps=replace(made.steps, state=states))


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([lively(n, n > 0) for n in range(12)], "only 1 episodes are labelled failure"),
        ([lively(n, n % 2 == 0, policy_versions=("old",)) for n in range(20)], "20 of 20 episodes are of other ver"),
        ([published(n, n % 2 == 0) for n in range(20)], "100 of 120 recorded states repeat the one before"),
        ([*(lively(n, n % 2 == 0) for n in range(20)), published(20, None)], "1 episodes have no label"),
    ],
)
def test_the_report_warns(log: list[Episode], words: str) -> None:
    assert any(words in each for each in warnings(log)), warnings(log)


def test_the_report_warns_of_nothing_where_nothing_is_wrong() -> None:
    assert warnings([lively(n, n % 2 == 0) for n in range(20)]) == ()


def test_a_damaged_episode_is_left_out_and_named(root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(root, tmp_path / "root"))
    path = root / EPISODES / EpisodeStore(root / EPISODES).summary(f"{1:032x}").path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = data(root, save_toy(tmp_path / "base")).report
    assert found.left_out["damaged"] == 1
    assert any("was changed after publishing" in each for each in found.warnings)


def test_a_label_that_changes_meanwhile_is_not_learnt(tmp_path: Path) -> None:
    """What the report and the lineage say is what is learnt from."""
    root = stored(tmp_path, published(1, True), published(2, False, 1))
    found = data(root, save_toy(tmp_path / "base"))
    EpisodeStore(root / EPISODES).label(f"{1:032x}", False, "operator")
    assert [each.info.success for each in found.log] == [True, False]
    assert data(root, tmp_path / "base").report.outcomes == {"failure": 2}


def test_episodes_are_opened_one_at_a_time(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, most = list[weakref.ref[Episode]](), 0
    read = EpisodeStore.open

    def counted(self: EpisodeStore, episode_id: str, **how: bool) -> Episode:
        nonlocal most
        found = read(self, episode_id, **how)
        opened.append(weakref.ref(found))
        most = max(most, sum(each() is not None for each in opened))
        return found

    monkeypatch.setattr(EpisodeStore, "open", counted)
    base, spec = save_toy(tmp_path / "base"), FinetuneEpisodes(task=OTHER, config=AWR)
    train_on_episodes(spec, episode_data(spec, root, Heard(), base), tmp_path / "out", Heard(), base)
    assert len(opened) == 7, "once to count, and the three with a label to learn"
    assert most <= 2, "the next is read before the last is let go"


def test_what_a_run_lacks_is_an_error(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    with pytest.raises(ValueError, match="keeps no episodes: give the --root of a server"):
        data(tmp_path / "nowhere", base)
    empty = data(stored(tmp_path), base)
    assert empty.report.episodes == 0
    with pytest.raises(ValueError, match="the server keeps no episodes yet"):
        train_on_episodes(Sft(task=OTHER, config=SHORT), empty, tmp_path / "out", Heard(), base)
    with pytest.raises(ValueError, match="'toy' has no scripted expert"):
        train_sft(Sft(task="toy"), tmp_path / "out", Heard(), TOY, base)
    assert not (tmp_path / "out").exists()


def test_only_a_base_with_a_camera_changes_what_the_critic_reads(tmp_path: Path) -> None:
    assert planned(OTHER, save_toy(tmp_path / "base"), PpoConfig(), 0).config == PpoConfig()
    seeing = save_toy(tmp_path / "seeing", sees=True)
    assert planned(OTHER, seeing, PpoConfig(), 0).config == PpoConfig(critic_features="tabletop_relative")
    given = PpoConfig(critic_features="policy")
    assert planned(OTHER, seeing, given, 0).config == given


def test_the_report_says_what_stored_densities_are_worth(tmp_path: Path) -> None:
    """Of the base's own chains each weight is 1; of a version that is not kept there is none."""
    base = save_toy(tmp_path / "base")
    log = log_of(FlowPolicy.load(base), range(6))
    mine = data(stored(tmp_path, *log), base, config=replace(AWR, method="ppo_logged")).report
    assert mine.density.ess == {checkpoint_version(base): pytest.approx(1.0, abs=1e-4)}
    assert mine.density.mismatch == pytest.approx(0.0, abs=1e-3)
    assert mine.density.episodes == 6
    assert mine.methods["ppo_logged"] == "yes"
    other = save_toy(tmp_path / "other", seed=1)
    foreign = data(tmp_path / "root", other, config=replace(AWR, method="ppo_logged")).report
    assert (foreign.density.ess, foreign.density.mismatch) == ({}, None)
    assert foreign.methods["ppo_logged"].startswith("no episode of the base or a version shortly before it")
