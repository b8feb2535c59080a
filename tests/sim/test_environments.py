"""`pirl sim`: an environment is there whole and as pinned, or not at all."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from pirl_sim import environments
from pirl_sim.commands import main
from pirl_sim.environments import Environment, facts, folder, install, python_of, versions


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only package of a simulator "toy"."""
    path = tmp_path / "toy_world-1.5-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy_world.py", "TASKS = ['lift']\n")
        archive.writestr("toy_world-1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: Toy-World\nVersion: 1.5\n")
        archive.writestr("toy_world-1.5.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("toy_world-1.5.dist-info/RECORD", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asks = "import json, toy_world; print(json.dumps({'tasks': toy_world.TASKS}))"
    monkeypatch.setitem(environments.ENVIRONMENTS, "toy", Environment((str(path),), "a toy", asks))
    return path


@pytest.mark.slow
def test_it_is_made_once_and_says_what_is_in_it(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert python_of("toy") is None
    assert (versions("toy"), facts("toy")) == ({}, {})
    assert main(["install", "toy"]) == 0
    python = python_of("toy")
    assert python is not None
    assert python.is_relative_to(wheel.parent / "cache/pirl/simulators/toy")
    assert versions("toy")["toy-world"] == "1.5"
    assert facts("toy") == {"tasks": ["lift"]}
    made = (folder("toy") / environments.READY).stat().st_mtime_ns
    assert install("toy") == python
    assert (folder("toy") / environments.READY).stat().st_mtime_ns == made, "left as it is"
    assert main(["ls"]) == 0
    assert str(folder("toy")) in capsys.readouterr().out
    other = Environment((str(wheel), "pip"), "a toy with other pins")
    monkeypatch.setitem(environments.ENVIRONMENTS, "toy", other)
    assert python_of("toy") is None, "it is not what is asked for now"
    assert versions("toy") == {}


@pytest.mark.slow
def test_one_that_can_not_be_made_is_not_there(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel.write_bytes(b"no wheel")
    assert main(["install", "toy"]) == 1
    assert "pip --disable-pip-version-check install" in capsys.readouterr().err
    assert python_of("toy") is None
    assert main(["ls"]) == 0
    assert "not installed: pirl sim install toy" in capsys.readouterr().out


def test_an_unknown_name_and_a_torn_file_are_said(wheel: Path) -> None:
    with pytest.raises(ValueError, match="no simulator 'tyo' has an environment of its own; there are: libero, toy"):
        main(["install", "tyo"])
    folder("toy").mkdir(parents=True)
    for text in ("", "{", json.dumps({"requirements": []})):
        (folder("toy") / environments.READY).write_text(text)
        assert python_of("toy") is None
