"""`pirl episodes VERB`: every verb is there, and `verify` finds what was changed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from test_episode_store import make_episode

from pirl_server.data_commands import DATASETS, EPISODES, episodes
from pirl_server.episodes.store import EpisodeStore

VERBS = [("episodes", *each) for each in EPISODES.items()] + [("dataset", *each) for each in DATASETS.items()]


@pytest.mark.parametrize(("family", "verb", "target"), VERBS)
def test_each_verb_is_a_function_that_explains_itself(
    family: str, verb: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, name = target.partition(":")
    with pytest.raises(SystemExit, match="0"):
        getattr(import_module(module), name)(["--help"])
    assert f"pirl {family} {verb}" in capsys.readouterr().out


def test_verify_tells_a_changed_file_from_whole_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EpisodeStore(tmp_path / "episodes")
    files = [tmp_path / "episodes" / store.write(make_episode(n)).path for n in (1, 2)]
    assert episodes(["verify", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "2 episodes as published, 0 damaged\n"
    raw = bytearray(files[0].read_bytes())
    raw[len(raw) // 2] ^= 1
    files[0].write_bytes(raw)
    assert episodes(["verify", "--root", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == "1 episodes as published, 1 damaged\n"
    assert files[0].parent.name in err
