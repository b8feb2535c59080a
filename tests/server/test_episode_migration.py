"""Episodes of schema version 1 rewritten: the same bits, digest and label, wherever the process is killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_episode_layout import arrays, assert_equal

from pirl_server.episodes import migration
from pirl_server.episodes.migration import migrate, migrate_store
from pirl_server.episodes.store import EpisodeStore
from pirl_server.root_lock import root_lock

STORED = Path(__file__).parents[1] / "fixtures" / "stored" / "store"


class Killed(BaseException):
    """Not caught by what handles errors."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(STORED, tmp_path / "episodes")
    return tmp_path


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in next((root / "episodes/episodes/arm-1").iterdir()).iterdir())


def test_it_is_rewritten_once_and_stays_what_it_was(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EpisodeStore(root / "episodes")
    (before,) = store.list()
    episode, digest = store.open(before.id), store.digest(before.id)
    assert entries(root) == ["MANIFEST.json", "episode.zarr"]
    assert migrate(["--root", str(root)]) == 0
    assert capsys.readouterr().out == "1 episodes rewritten, 0 could not be\n"
    assert entries(root) == ["MANIFEST.json", "episode.zarr.zip"]
    after = EpisodeStore(root / "episodes")
    (summary,) = after.list()
    assert summary.path == before.path + ".zip"
    assert vars(summary) | {"path": ""} == vars(before) | {"path": ""}, "its label too"
    assert after.digest(before.id) == digest
    assert_equal(arrays(after.open(before.id)), arrays(episode))
    assert after.open(before.id).info == episode.info
    assert migrate(["--root", str(root)]) == 0
    assert capsys.readouterr().out == "0 episodes rewritten, 0 could not be\n"


STEPS = ("write_group", "replace", "replace", "rmtree")
"""what may be interrupted, in order: by a kill before it, or after"""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(len(STEPS)))
def test_wherever_it_is_killed_the_episode_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    store, done = EpisodeStore(root / "episodes"), list[str]()
    (before,) = store.list()
    expected = arrays(store.open(before.id))

    def killing(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("ignore_errors"):  # tidying up: a killed process does none
                return None
            done.append(name)
            if len(done) == at + 1 and not after:
                raise Killed
            result = act(*args, **kwargs)
            if len(done) == at + 1:
                raise Killed
            return result

        return call

    with monkeypatch.context() as patch:
        patch.setattr(migration, "write_group", killing("write_group", migration.write_group))
        patch.setattr(migration.os, "replace", killing("replace", os.replace))
        patch.setattr(migration.shutil, "rmtree", killing("rmtree", shutil.rmtree))
        with pytest.raises(Killed):
            migrate_store(root / "episodes")
    assert tuple(done) == STEPS[: at + 1]
    killed = EpisodeStore(root / "episodes")
    assert [each.id for each in killed.list()] == [before.id]
    assert_equal(arrays(killed.open(before.id)), expected)
    assert migrate(["--root", str(root)]) == 0
    assert entries(root) == ["MANIFEST.json", "episode.zarr.zip"]
    assert list((root / "episodes" / "staging").iterdir()) == []
    assert_equal(arrays(EpisodeStore(root / "episodes").open(before.id)), expected)


def test_what_is_damaged_stays_and_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home,) = (root / "episodes/episodes/arm-1").iterdir()
    path = home / "MANIFEST.json"
    raw = json.loads(path.read_text())
    raw["files"]["episode.zarr/zarr.json"]["sha256"] = "0" * 64
    path.write_text(json.dumps(raw))
    before = sorted(each.relative_to(home) for each in home.rglob("*"))
    assert migrate(["--root", str(root)]) == 1
    assert str(home) in capsys.readouterr().err
    assert sorted(each.relative_to(home) for each in home.rglob("*")) == before


def test_not_while_a_server_runs_nor_where_there_is_no_store(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with root_lock(root), pytest.raises(SystemExit):
        migrate(["--root", str(root)])
    assert "in use by the server" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        migrate(["--root", str(root / "episodes")])
    assert "holds no episodes" in capsys.readouterr().err
