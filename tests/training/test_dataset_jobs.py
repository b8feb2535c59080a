"""A job on a dataset can be repeated: what was frozen is what is learnt, and lineage says which dataset it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_recipes import AWR, OTHER, SHORT, Heard, published, save_toy, stored

from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.jobs import FinetuneEpisodes, Sft
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES
from pirl_server.policy.checkpoint import load_card
from pirl_server.training.recipes import EpisodeData, episode_data, train_on_episodes


def frozen(root: Path) -> EpisodeStore:
    store = EpisodeStore(root / EPISODES)
    store.datasets.create("first", list(store.select(EpisodeSelection())), EpisodeSelection())
    return store


def test_later_labels_and_episodes_change_nothing(tmp_path: Path) -> None:
    root, base = stored(tmp_path, *(published(n, n % 2 == 0, n) for n in range(1, 5))), save_toy(tmp_path / "base")
    store, spec = frozen(root), FinetuneEpisodes(task=OTHER, config=AWR, dataset="first")

    def lineage(name: str) -> dict[str, str]:
        data = episode_data(spec, root, Heard(), base)
        train_on_episodes(spec, data, tmp_path / name, Heard(), base)
        return dict(load_card(tmp_path / name).lineage)

    first = lineage("first")
    assert first["dataset"] == "first"
    assert first["dataset_sha256"] == first["episodes_sha256"] == store.datasets.get("first").sha256
    for each in store.list():
        store.label(each.id, False, "operator")
    store.write(published(9, True))
    assert lineage("again") == first
    chosen = episode_data(FinetuneEpisodes(task=OTHER, config=AWR), root, Heard(), base).report
    assert chosen.outcomes == {"success": 1, "failure": 4}, "negative control: a selection sees both"


def test_an_imitation_takes_the_successes_of_a_dataset(tmp_path: Path) -> None:
    root, base = stored(tmp_path, *(published(n, n % 2 == 0, n) for n in range(1, 5))), save_toy(tmp_path / "base")
    store, spec = frozen(root), Sft(task=OTHER, config=SHORT, dataset="first")
    data = episode_data(spec, root, Heard(), base)
    assert [each.info.success for each in data.log.facts] == [True, True]
    assert data.report.left_out == {"not labelled a success": 2}
    train_on_episodes(spec, data, tmp_path / "out", Heard(), base)
    assert load_card(tmp_path / "out").lineage["dataset_sha256"] == store.datasets.get("first").sha256


def test_a_missing_episode_and_a_wrong_name_are_rejected(tmp_path: Path) -> None:
    root, base = stored(tmp_path, *(published(n, n % 2 == 0, n) for n in range(1, 5))), save_toy(tmp_path / "base")
    store = frozen(root)

    def data(name: str) -> EpisodeData:
        return episode_data(FinetuneEpisodes(task=OTHER, config=AWR, dataset=name), root, Heard(), base)

    with pytest.raises(ValueError, match="no dataset 'second': there are first"):
        data("second")
    found = data("first")
    assert store.leases.read() == {each.info.id for each in found.log.facts}, "none of them is removed meanwhile"
    del found
    store.remove(f"{2:032x}")
    with pytest.raises(ValueError, match=f"dataset 'first': episode '{2:032x}' is missing"):
        data("first")
    with pytest.raises(ValueError, match="leave out select"):
        FinetuneEpisodes(task=OTHER, dataset="first", select=EpisodeSelection(limit=1))
    with pytest.raises(ValueError, match=r"config\.source to 'episodes'"):
        Sft(task=OTHER, dataset="first")
