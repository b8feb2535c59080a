"""Small versions of `bench/crash_store.py`: nothing acknowledged is lost, nothing half is shown; and its controls."""

from __future__ import annotations

import errno
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "crash_store_run"))

from crash_damage import KINDS, damages
from crash_disk import failing_calls, small_files
from crash_episodes import made
from crash_journal import FILES, FOLDERS
from crash_power import power_cuts

from pirl_server.episodes.store import ANY, EpisodeStore

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def quick() -> dict[str, dict[str, Any]]:
    """In a process of its own, which forks."""
    command = [sys.executable, str(BENCH / "crash_store.py"), "--quick", "--json", "--only", "kills,disk"]
    found: dict[str, dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


@pytest.mark.slow
def test_kills_lose_nothing_that_was_acknowledged(quick: dict[str, dict[str, Any]]) -> None:
    (row,) = [row for name, row in quick.items() if name.startswith("kills")]
    assert row["faults"] == []
    assert row["kills"] == 30
    assert row["swept"] > 0, "no kill fell into a write"
    assert row["acknowledged"] > 0
    assert row["labels"] > 0


@pytest.mark.slow
def test_control_writers_that_acknowledge_too_early_are_found_out(quick: dict[str, dict[str, Any]]) -> None:
    (row,) = [row for name, row in quick.items() if name.startswith("control")]
    assert row["lost"] > 0
    assert row["corrupt"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["EIO in each call", "ENOSPC in each call", "files that may not grow", "full tmpfs", "read-only folder"]
)
def test_a_disk_that_rejects_shows_nothing_half_and_takes_the_episode_later(
    quick: dict[str, dict[str, Any]], kind: str
) -> None:
    row = quick[kind]
    if row["skipped"]:
        pytest.skip(row["skipped"])
    assert row["faults"] == []
    assert row["refused"] >= row["tries"] - 1 > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    found = power_cuts(tmp_path, 12, 4, seed=seed)
    assert found.faults == []
    assert found.acknowledged > 0
    assert found.labels > 0


@pytest.mark.parametrize("forced", [(), (FILES,), (FOLDERS,)], ids=["nothing", "files", "folders"])
def test_control_a_store_that_forces_too_little_to_the_disk_loses(tmp_path: Path, forced: tuple[str, ...]) -> None:
    assert power_cuts(tmp_path, 12, 4, forced).lost > 0


@pytest.mark.slow
def test_damage_of_every_kind_is_found_or_in_bytes_that_nothing_reads(tmp_path: Path) -> None:
    rows = damages(tmp_path, 8)
    assert [fault for row in rows.values() for fault in row.faults] == []
    assert rows.keys() == set(KINDS)
    for kind, row in rows.items():
        assert row.found + row.unread == row.tries == 8
        if kind not in ("label log", "index", "dataset"):
            assert row.found > 0
            assert row.verified == row.unread, "what is not read is found by verify all the same"


@pytest.mark.parametrize("word", ["author", "created", "label_source", "instructions"])
def test_every_field_of_a_dataset_counts(tmp_path: Path, word: str) -> None:
    store = EpisodeStore(tmp_path)
    store.write(made(8, 2))
    frozen = store.datasets.create("all", list(store.select(ANY)), ANY, "somebody")
    path = tmp_path / "datasets" / "all.json"
    raw = path.read_text()
    assert store.datasets.get("all") == frozen
    path.write_text(raw.replace(f'"{word}": ', f'"{word}":  '))
    assert store.datasets.get("all") == frozen, "control: white space says the same"
    changed = json.loads(raw)
    target = changed["selection"] if word == "instructions" else changed["episodes"][0] if "l" in word else changed
    target[word] = ["x"] if word == "instructions" else "x"
    path.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="changed after"):
        store.datasets.get("all")


def test_calls_that_fail_leave_no_error_behind(tmp_path: Path) -> None:
    """One that nobody catches, in a finaliser, would end this test."""
    for found in (failing_calls(tmp_path, errno.EIO, range(40, 140, 19)), small_files(tmp_path, 3)):
        assert found.faults == []
        assert found.refused >= 3
    gc.collect()
