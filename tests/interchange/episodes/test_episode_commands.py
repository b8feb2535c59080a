"""`pirl episodes import` and `export` as a user runs them, and an import that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
from exchanged import PEER_CONTRACT, export, logged, same, store_at
from patience import Patience

from pirl_server.config.interchange import ExportFormat, ImportFormat
from pirl_server.data_commands import episodes
from pirl_server.interchange.episodes.formats import FORMATS, exporter, importer


def test_every_format_is_a_setting_and_is_there() -> None:
    assert {each.name for each in FORMATS if each.importer} | {"auto"} == set(get_args(ImportFormat))
    assert {each.name for each in FORMATS if each.exporter} == set(get_args(ExportFormat))
    for each in FORMATS:
        assert each.importer or each.exporter
        if each.importer:
            assert find_spec(each.importer.partition(":")[0]) is not None
            assert callable(importer(each))
        if each.exporter:
            assert callable(exporter(each.name))


def test_out_and_in_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, root = store_at(tmp_path / "root"), str(tmp_path / "root")
    for number in range(3):
        store.write(logged(number, number != 1))
    out = str(tmp_path / "out")
    assert episodes(["export", "lerobot", "--root", root, "--out", out, "--label", "success"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: 2 episodes; left out: 1 with another label"
    other = str(tmp_path / "other")
    assert episodes(["import", out, "--root", other]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{other}: 2 episodes imported, 0 were there already"
    found = store_at(tmp_path / "other")
    for each in found.list():
        same(found.open(each.id), store.open(each.id))
    with pytest.raises(ValueError, match="keeps no episodes: give the --root of a server"):
        episodes(["export", "lerobot", "--root", str(tmp_path / "none"), "--out", str(tmp_path / "new")])


def test_a_foreign_dataset_with_its_contract(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = tmp_path / "arm.json"
    contract.write_text(PEER_CONTRACT.to_json())
    words = ["import", str(made("image")), "--root", str(tmp_path / "root"), "--contract", str(contract)]
    assert episodes([*words, "--robot-id", "arm-1"]) == 0
    assert {each.robot_id for each in store_at(tmp_path / "root").list()} == {"arm-1"}
    with pytest.raises(ValueError, match=r"--rename must .* got 'a.pos'"):
        episodes([*words, "--rename", "a.pos"])
    capsys.readouterr()


@pytest.mark.slow
def test_a_killed_import_leaves_whole_episodes_and_continues(tmp_path: Path) -> None:
    """Killed by the kernel while it writes: what is in the store is whole, and the rest comes with the next run."""
    count, out = 60, tmp_path / "out"
    export([logged(number) for number in range(count)], out)
    words = [sys.executable, "-m", "pirl_contract.commands.cli", "episodes", "import", str(out)]
    command = [*words, "--root", str(tmp_path / "root")]
    store, patience = store_at(tmp_path / "root"), Patience(120)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list((tmp_path / "root").glob("episodes/episodes/arm/*")) and patience.left_s > 0:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    there = store.list()
    assert 0 < len(there) < count
    for each in there:
        same(store.open(each.id), logged(int(each.id, 16)))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith(
        f"{count - len(there)} episodes imported, {len(there)} were there already"
    )
    assert len(store.list()) == count
