"""Flipped bits and damaged lines of stored episodes: found, named, put away; the rest is listed and learned from."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from test_episode_store import make_episode

from pirl_server.atomic_files import append_line
from pirl_server.config.episodes import EpisodeSelection, LabelState
from pirl_server.episodes import index, manifest, summary
from pirl_server.episodes.manifest import DamagedError, UnreadableError
from pirl_server.episodes.store import GROUP, EpisodeStore
from pirl_server.episodes.summary import EpisodeSummary


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be read is read again with the next list."""
    monkeypatch.setattr(index, "RETRY_S", 0.0)


def home_of(kept: EpisodeStore, found: EpisodeSummary) -> Path:
    return (kept.root / found.path).parent


def old(path: Path) -> None:
    """Let the file look as if it had been there for long."""
    os.utime(path, (1_700_000_000, 1_700_000_000))


def unseal(home: Path) -> None:
    """Write the manifest as an earlier version did: without a check of its own."""
    path = home / manifest.NAME
    raw = json.loads(path.read_text())
    del raw["sha256"]
    path.write_text(json.dumps(raw, indent=1))


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    old(path)


@pytest.fixture
def kept(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "episodes")


@pytest.mark.parametrize("before", [False, True], ids=["checked", "of before"])
def test_a_flipped_bit_of_a_manifest_never_ends_the_list(kept: EpisodeStore, before: bool) -> None:
    """Of a manifest with a check every bit is found when it is listed; of an older one, at the latest when opened."""
    whole, victim = (kept.write(replace(make_episode(), final=None)) for _ in range(2))
    home = home_of(kept, victim)
    if before:
        unseal(home)
    path, rng = home / manifest.NAME, random.Random(0)
    raw = path.read_bytes()
    summary_bits = range(8 * raw.index(b'"summary"'), 8 * raw.index(b'"files"'))
    for bit in [*rng.sample(summary_bits, 100), *rng.sample(range(8 * len(raw)), 100)]:
        flip(path, bit)
        kept_by_list = [each.id for each in EpisodeStore(kept.root).list()]
        assert whole.id in kept_by_list
        if victim.id in kept_by_list:
            assert before, f"bit {bit} was not found"
            if json.loads(path.read_text(errors="replace")) == json.loads(raw):
                flip(path, bit)  # white space, or the other case of an escape: it says the same
                continue
            with pytest.raises((DamagedError, UnreadableError)):
                EpisodeStore(kept.root).open(victim.id)
        away = kept.root.parent / "quarantine" / "episodes" / victim.id
        if away.exists():
            reason = away.with_name(f"{victim.id}.reason.txt").read_text()
            assert str(path) in reason or victim.id in reason
            away.rename(home)
        else:
            assert before, "left where it is: only what an older manifest lists may be missing for another reason"
        path.write_bytes(raw)
    old(path)
    assert len(EpisodeStore(kept.root).list()) == 2, "negative control: whole again"


def test_a_damaged_episode_is_put_away_with_its_reason_and_named(kept: EpisodeStore) -> None:
    whole, victim = kept.write(make_episode()), kept.write(make_episode())
    assert len(kept.list()) == 2
    home = home_of(kept, victim)
    with zipfile.ZipFile(home / GROUP) as archive:
        chain = archive.getinfo("call/chain/c/0/0/0/0")
    flip(home / GROUP, 8 * (chain.header_offset + 200))
    old(home / manifest.NAME)
    assert len(kept.list()) == 2, "data is not read for a list"
    with pytest.raises(DamagedError, match=r"chain.*moved to"):
        EpisodeStore(kept.root).open(victim.id)  # as a job does, in its own process
    assert [each.id for each in kept.list()] == [whole.id]
    assert "chain" in kept.damaged[victim.id]
    assert "quarantine" in kept.degraded[0]
    for use in (kept.summary, kept.open, lambda name: kept.label(name, True, "operator")):
        with pytest.raises(KeyError):
            use(victim.id)
    shutil.rmtree(kept.root.parent / "quarantine")
    kept.write(make_episode())
    assert len(kept.list()) == 2


def test_a_new_one_may_be_a_copy_on_its_way_and_stays(kept: EpisodeStore) -> None:
    kept.write(make_episode())
    victim = kept.write(make_episode())
    home = home_of(kept, victim)
    raw = (home / manifest.NAME).read_bytes()
    for incomplete in (raw[:-200], raw[:20], b""):
        (home / manifest.NAME).write_bytes(incomplete)
        fresh = EpisodeStore(kept.root)
        assert len(fresh.list()) == 1
        assert home.is_dir()
        assert manifest.NAME in fresh.damaged[victim.id]
        (home / manifest.NAME).write_bytes(raw)
        assert len(fresh.list()) == 2, "complete now"
        assert fresh.damaged == {}


def test_missing_files_and_other_versions_are_named_and_left_where_they_are(kept: EpisodeStore) -> None:
    homes = [home_of(kept, kept.write(make_episode())) for _ in range(5)]
    (homes[0] / GROUP).unlink()
    (homes[1] / manifest.NAME).unlink()
    newer = json.loads((homes[2] / manifest.NAME).read_text())["summary"]
    del newer["calls"]
    (homes[2] / manifest.NAME).unlink()
    manifest.seal(homes[2], newer | {"weight": 1.5})
    (homes[3].parent.parent / "arm-2").mkdir()
    moved = homes[3].rename(homes[3].parent.parent / "arm-2" / homes[3].name)
    for home in (homes[0], homes[2], moved):
        old(home / manifest.NAME)
    fresh = EpisodeStore(kept.root)
    assert [each.id for each in fresh.list()] == [homes[4].name]
    assert fresh.damaged.keys() == {home.name for home in homes[:4]}
    for home, word in zip(
        homes[:4], ("episode.zarr.zip' is missing", "is missing", "calls", "it is of 'episodes/arm-1/")
    ):
        assert word in fresh.damaged[home.name]
    assert all(home.is_dir() for home in (homes[0], homes[1], homes[2], moved))


def test_a_summary_with_more_than_this_version_knows_is_read(kept: EpisodeStore) -> None:
    """A store that a newer version has written to must not be put away."""
    found = kept.write(make_episode())
    home = home_of(kept, found)
    (home / manifest.NAME).unlink()
    manifest.seal(home, asdict(found) | {"weight": 1.5})
    assert EpisodeStore(kept.root).list() == [found]


def test_a_disk_that_does_not_give_a_manifest_now_is_no_damage(
    kept: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = kept.write(make_episode())
    read = manifest.read

    def refuse(home: Path) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(manifest, "read", refuse)
    assert kept.list() == []
    assert "Too many open files" in kept.damaged[found.id]
    monkeypatch.setattr(manifest, "read", read)
    assert kept.list() == [found]
    assert kept.damaged == {}


LABEL_DAMAGE: dict[str, Callable[[str], str]] = {
    "another meaning": lambda line: line.replace("false", "true"),
    "another episode": lambda line: line.replace('"episode": "', '"episode": "f', 1),
    "no check": lambda line: line.replace('"check"', '"chuck"'),
    "no JSON": lambda line: line.replace("{", "k", 1),
    "no text": lambda line: line.replace('"note"', '"n\udcffte"'),
}


@pytest.mark.parametrize("damage", LABEL_DAMAGE.values(), ids=LABEL_DAMAGE.keys())
def test_a_changed_label_counts_for_nothing_and_is_named(kept: EpisodeStore, damage: Callable[[str], str]) -> None:
    found = kept.write(make_episode())
    kept.label(found.id, None, "operator", "who knows")
    kept.label(found.id, False, "operator", "it fell")
    path = kept.root / "labels.jsonl"
    before, line = path.read_text().splitlines(keepends=True)
    path.write_bytes((before + damage(line)).encode(errors="surrogateescape"))
    fresh = EpisodeStore(kept.root)
    assert fresh.list()[0].success is None
    (named,) = fresh.degraded
    assert f"{path}', line 2" in named
    fresh.label(found.id, True, "operator", "it did")
    assert fresh.list()[0].success is True
    assert len(fresh.degraded) == 1
    last = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_text(before)
    assert fresh.list()[0].success is None
    assert "lacks 1 labels" in "".join(fresh.degraded), "the last one is gone"
    path.write_bytes((before + line).encode() + last)
    assert fresh.list()[0].success is True
    assert fresh.degraded == [], "repaired"


def test_every_bit_of_a_label_counts(kept: EpisodeStore) -> None:
    found = kept.write(make_episode())
    kept.label(found.id, False, "operator", "it fell")
    path = kept.root / "labels.jsonl"
    raw = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * (len(raw) - 1)), 100):
        flip(path, bit)
        fresh = EpisodeStore(kept.root)
        assert fresh.list()[0].success is True, "as it was published"
        assert len(fresh.degraded) >= 1
        path.write_bytes(raw)


def test_labels_of_before_without_a_check_count(kept: EpisodeStore) -> None:
    found = kept.write(make_episode())
    line = {"episode": found.id, "success": False, "source": "operator", "note": "", "at": "2026-01-01"}
    append_line(kept.root / "labels.jsonl", line)
    assert kept.list()[0].success is False
    assert kept.degraded == []


def test_many_summaries_are_read_by_another_process_with_the_same_result(
    kept: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [kept.write(make_episode()) for _ in range(3)]
    damaged, torn = (home_of(kept, kept.write(make_episode())) for _ in range(2))
    flip(damaged / manifest.NAME, 900)
    (torn / manifest.NAME).unlink()
    homes = [home_of(kept, each) for each in found] + [damaged, torn]
    here = summary.read_records(homes)
    assert [each.summary for each in here[:3]] == found
    commands = []
    run = subprocess.run

    def noted(command: list[str], **settings: Any) -> Any:
        commands.append(command)
        return run(command, **settings)

    monkeypatch.setattr(subprocess, "run", noted)
    monkeypatch.setattr(summary, "FEW", 0)
    there = summary.read_records(homes)
    assert commands == [[sys.executable, "-m", "pirl_server.episodes.summary"]]
    assert [(type(each), str(each)) for each in there] == [(type(each), str(each)) for each in here]
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert [each.summary for each in summary.read_records(homes)[:3]] == found, "where none can be started, here"


def test_a_list_reads_each_manifest_once(kept: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = manifest.read

    def counted(home: Path) -> Any:
        reads.append(home.name)
        return read(home)

    first = [kept.write(make_episode()) for _ in range(3)]
    monkeypatch.setattr(manifest, "read", counted)
    for _ in range(3):
        page = kept.page(EpisodeSelection(), 2)
        assert ([each.summary for each in page.entries], page.more) == (kept.list()[:2], True)
    assert sorted(reads) == sorted(each.id for each in first)
    other = EpisodeStore(kept.root)
    later = other.write(replace(make_episode(), info=replace(make_episode().info, robot_id="arm-2", created="2026-02")))
    reads.clear()
    assert kept.list()[0] == later, "of another store, newest first"
    assert reads == [], "its row was added when it was published"
    shutil.rmtree(home_of(kept, first[0]))
    assert {each.id for each in kept.list()} == {first[1].id, first[2].id, later.id}
    assert reads == []


def test_pages_follow_each_other_and_filter(kept: EpisodeStore) -> None:
    for number in range(9):
        info = replace(make_episode().info, created=f"2026-01-0{number + 1}", robot_id=f"arm-{number % 2}")
        kept.write(replace(make_episode(), info=replace(info, success=number % 3 == 0)))
    everything = kept.list()
    assert [each.created for each in everything] == sorted((each.created for each in everything), reverse=True)
    labels: dict[bool | None, LabelState] = {None: "any", False: "failure", True: "success"}
    for robot, success in ((None, None), ("arm-1", None), (None, False), ("arm-0", True), ("arm-7", None)):
        wanted = [each for each in everything if robot in (None, each.robot_id) and success in (None, each.success)]
        selection = EpisodeSelection(robots=(robot,) if robot else (), label=labels[success])
        got: list[EpisodeSummary] = []
        more, after = True, None
        while more:
            page = kept.page(selection, 2, after)
            assert len(page.entries) == 2 or not page.more
            got += [each.summary for each in page.entries]
            more, after = page.more, page.entries[-1].summary.id if page.entries else after
        assert got == wanted
    with pytest.raises(KeyError):
        kept.page(EpisodeSelection(), 2, "f" * 32)
