"""A small version of each part of bench/crash_store.py, and controls that do lose something."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench" / "crash_store_run"))

from damage import KINDS, damaged
from episodes import made
from kills import killed
from power_cut import cut
from rejections import rejected

from pirl_server.episodes import index

LOST = ("acknowledged episodes lost", "acknowledged labels lost", "corrupt episodes visible")


@pytest.fixture(autouse=True)
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "YOUNG_NS", 0)


def test_ten_writers_that_are_killed_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    found = killed(tmp_path, made(20, 60, 48), rounds=3, longest_s=1.5)
    assert {name: found[name] for name in LOST} == dict.fromkeys(LOST, 0)
    assert found["kills"] == 30


def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    found = cut(tmp_path, made(3, 6, 16), cuts=14)
    assert {name: found[name] for name in LOST} == dict.fromkeys(LOST, 0)
    assert found["incomplete episodes published"] == 0
    assert found["acknowledged"] > 10


def test_without_forcing_to_the_disk_a_power_cut_does_lose(tmp_path: Path) -> None:
    """Negative control."""
    found = cut(tmp_path, made(3, 6, 16), cuts=3, works=False)
    assert found["acknowledged episodes lost"] > 0


def test_damage_of_every_kind_of_file_is_found_and_the_rest_is_read(tmp_path: Path) -> None:
    found = damaged(tmp_path, made(3, 6, 16), times=60)
    assert [found[f"{kind}: missed"] for kind in KINDS] == [0] * len(KINDS)
    assert found["undamaged episodes not read"] == 0
    assert found["arrays: found"] > 6


def test_a_disk_that_rejects_publishes_nothing_by_halves(tmp_path: Path) -> None:
    found = rejected(tmp_path, made(3, 6, 16), times=12)
    assert found["full: rejected"] > 3
    assert found["failing: rejected"] > 3
    assert sum(count for name, count in found.items() if not name.endswith("rejected")) == 0
