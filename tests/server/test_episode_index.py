"""The index says what the manifests and labels say: whatever is asked, whoever writes, whatever becomes of its file."""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from many_episodes import INSTRUCTIONS, many, older, publish
from patience import completed
from test_episode_store import make_episode

from pirl_server.config.episodes import EpisodeSelection, parse_time
from pirl_server.config.fields import parse
from pirl_server.episodes import index, index_database, manifest
from pirl_server.episodes.query import Learning, conditions, where
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.summary import EpisodeSummary

WRITER = """
import dataclasses, sys, uuid
from pathlib import Path
from pirl_server.episodes.store import EpisodeStore
store, first, count = EpisodeStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
episode = store.open(first)
for number in range(count):
    info = dataclasses.replace(episode.info, id=uuid.uuid4().hex, robot_id=f"arm-{number % 2}")
    print(store.write(dataclasses.replace(episode, info=info)).id, flush=True)
    store.label(first, bool(number % 2), "sim", f"{sys.argv[4]} {number}")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return EpisodeStore(tmp_path / "episodes").root


def keeps(said: EpisodeSummary, note: str, chosen: EpisodeSelection, now: datetime) -> bool:
    """What a selection means, said again without SQL."""
    when = parse_time(said.created)
    outcome = {True: "success", False: "failure", None: "unlabelled"}[said.success]
    labels = {"any": True, "labelled": said.success is not None}.get(chosen.label, chosen.label == outcome)
    drove = "human" if said.human_steps else "policy"
    explored = "greedy" if said.sampler == "ode" else "explore"
    words = (chosen.text or "").lower()
    return all(
        (
            not chosen.robots or said.robot_id in chosen.robots,
            not chosen.instructions or said.instruction in chosen.instructions,
            not chosen.versions or set(said.policy_versions) <= set(chosen.versions),
            not chosen.label_sources or said.label_source in chosen.label_sources,
            chosen.mode in ("any", explored),
            chosen.source in ("any", drove),
            labels,
            chosen.max_age_days is None or (now - when) / timedelta(days=1) <= chosen.max_age_days,
            chosen.since is None or when >= parse_time(chosen.since),
            chosen.until is None or when < parse_time(chosen.until),
            chosen.contract_hash in (None, said.contract_hash),
            words in said.instruction.lower() or words in note.lower(),
        )
    )


FIELDS: dict[str, list[Any]] = {
    "robots": [("arm-0",), ("arm-1", "arm-2"), ("arm-9",)],
    "instructions": [INSTRUCTIONS[:1], INSTRUCTIONS[1:]],
    "versions": [("v1",), ("v1", "v2"), ("v3", "v9")],
    "label": ["labelled", "success", "failure", "unlabelled"],
    "label_sources": [("sim",), ("operator", "classifier")],
    "mode": ["explore", "greedy"],
    "source": ["policy", "human"],
    "max_age_days": [1e-3, 1e9],
    "since": ["2026-01-01T01:00:00+00:00", "2026-01-01"],
    "until": ["2026-01-01T01:30:00+01:00", "2027-01-01"],
    "contract_hash": ["0" * 16],
    "text": ["table", "CUBE", "it fell", "%"],
}


def test_every_field_means_what_it_says(root: Path) -> None:
    listed, rng = many(root, 150), random.Random(1)
    store = EpisodeStore(root)
    notes = {each.id: "" for each in listed}
    for each in rng.sample(listed, 20):
        store.label(each.id, rng.choice((True, False, None)), "operator", "It fell")
        notes[each.id] = "It fell"
    listed = [store.summary(each.id) for each in listed]
    chosen = [EpisodeSelection(**{name: value}) for name, values in FIELDS.items() for value in values]
    for _ in range(60):
        names = rng.sample(sorted(FIELDS), 2)
        chosen.append(EpisodeSelection(**{name: rng.choice(FIELDS[name]) for name in names}))
    kept, now = [], datetime.now(timezone.utc)
    for each in chosen:
        wanted = [said for said in listed if keeps(said, notes[said.id], each, now)]
        assert [found.summary for found in store.select(each)] == wanted, each
        assert store.left_out(each).get("", 0) == len(wanted)
        kept.append(len(wanted))
    assert sum(0 < count < len(listed) for count in kept) > len(kept) / 2, "negative control: the fields do choose"


def test_a_job_counts_each_episode_once_by_the_first_reason(root: Path) -> None:
    listed, store = many(root, 80), EpisodeStore(root)
    learning = Learning("0" * 16, INSTRUCTIONS[:2])
    counts = store.left_out(EpisodeSelection(robots=("arm-1",)), learning)
    others = [each for each in listed if each.contract_hash != "0" * 16]
    assert counts["of another contract"] == len(others)
    mine = [each for each in listed if each.contract_hash == "0" * 16]
    assert counts["of another robot"] == sum(each.robot_id != "arm-1" for each in mine)
    assert sum(counts.values()) == 80
    assert store.left_out(EpisodeSelection(), Learning("0" * 16, ())).get("", 0) == 0, "nothing may be learnt"
    unknown = [replace(each, targets=None, human_steps=None) for each in many(root / "old", 10, seed=2)]
    for each in unknown:
        publish(root, replace(each, id=each.id[::-1], path=each.path.replace(each.id, each.id[::-1])))
    of_humans = EpisodeSelection(source="human")
    assert not any(each.summary.human_steps is None for each in store.select(of_humans))
    opened = [each for each in store.select(of_humans, Learning("0" * 16, None)) if each.summary.targets is None]
    assert opened, "what an earlier version did not count is opened to know"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"since": "yesterday"}, "'since'"),
        ({"since": "2026-13-01"}, "2026-01-31T08:00:00"),
        ({"contract_hash": "xyz"}, "'contract_hash'"),
        ({"text": "two\nlines"}, "'text'"),
        ({"label": "good"}, "'label'"),
        ({"robot": "arm-1"}, "did you mean robots"),
    ],
)
def test_a_wrong_value_is_rejected_with_its_field(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(EpisodeSelection, values)


def test_pages_neither_repeat_nor_skip_whatever_comes_and_goes(root: Path) -> None:
    listed, rng = many(root, 60), random.Random(3)
    store = EpisodeStore(root)
    got, place, more, removed = list[str](), None, True, set[str]()
    while more:
        page = store.page(EpisodeSelection(), 7, place)
        got += [each.summary.id for each in page.entries]
        more, place = page.more, page.entries[-1].cursor
        publish(root, older(rng.choice(listed)))
        left = [each for each in listed if each.id not in removed]
        victim = page.entries[-1].summary if len(removed) < 3 else rng.choice(left)
        removed.add(victim.id)
        shutil.rmtree((root / victim.path).parent)
    assert len(got) == len(set(got)), "none twice"
    assert {each.id for each in listed} - removed <= set(got), "none of those that were there all the time is missing"


def test_what_another_process_writes_is_there_without_reading_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(root)
    first = store.write(make_episode())
    assert store.list() == [first]
    monkeypatch.setattr(manifest, "read", None)
    done = completed([sys.executable, "-c", WRITER, str(root), first.id, "3", "a"], limit_s=120)
    assert {each.id for each in store.list()} == {first.id, *done.stdout.split()}
    assert store.summary(first.id).success is False


def test_many_writers_share_one_index(root: Path) -> None:
    """Each in a process of its own; lists meanwhile, and every row and label is there at the end."""
    store = EpisodeStore(root)
    first = store.write(make_episode())
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), first.id, "12", name], stdout=subprocess.PIPE, text=True
        )
        for name in "abcd"
    ]
    while any(each.poll() is None for each in writers):
        assert len(store.list()) <= 49
    ids = {line for each in writers for line in each.communicate()[0].split()}
    assert [each.returncode for each in writers] == [0, 0, 0, 0]
    assert len(ids) == 48
    assert {each.id for each in store.list()} == {each.id for each in EpisodeStore(root).list()} == ids | {first.id}
    assert store.entry(first.id).label_count == 48
    rows = index_database.IndexDatabase(root / index.NAME)
    assert rows.damage() == []


def settle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store look as if it had been at rest for a minute."""
    monkeypatch.setattr(index, "YOUNG_NS", 0)
    monkeypatch.setattr(index, "HOT_NS", 0)
    EpisodeStore(root).list()


def test_a_start_reads_no_manifest_and_finds_each_that_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = many(root, 20)
    settle(root, monkeypatch)
    reads, read = list[str](), manifest.read
    monkeypatch.setattr(manifest, "read", lambda home: [reads.append(home.name), read(home)][1])
    assert EpisodeStore(root).list() == listed
    assert reads == [], "nothing has changed"
    changed, gone, moved, cut = listed[:4]
    home = (root / changed.path).parent
    (home / manifest.NAME).unlink()
    manifest.write(home, vars(changed) | {"instruction": "lift the cube"})
    shutil.rmtree((root / gone.path).parent)
    (root / "episodes" / "arm-7").mkdir()
    (root / moved.path).parent.rename(root / "episodes" / "arm-7" / moved.id)
    os.truncate(root / cut.path, 1)
    fresh = EpisodeStore(root)
    assert fresh.list() == [replace(changed, instruction="lift the cube"), *listed[4:]]
    assert sorted(set(reads)) == sorted({changed.id, moved.id, cut.id})
    assert fresh.damaged.keys() == {moved.id, cut.id}
    assert gone.id not in fresh.damaged


def test_a_running_server_notices_a_changed_manifest_on_its_page(root: Path) -> None:
    listed = many(root, 5)
    store = EpisodeStore(root)
    assert len(store.page(EpisodeSelection(), 5).entries) == 5
    home = (root / listed[2].path).parent
    (home / manifest.NAME).unlink()
    manifest.write(home, vars(listed[2]) | {"instruction": "lift the cube"})
    page = store.page(EpisodeSelection(), 5)
    assert [each.summary.instruction for each in page.entries][2] == "lift the cube"


def damages(path: Path, rng: random.Random) -> list[bytes]:
    """The file with one flipped bit, and cut short, each many times."""
    raw, made = path.read_bytes(), list[bytes]()
    for _ in range(40):
        data = bytearray(raw)
        data[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        made.append(bytes(data))
    return [*made, b"", b"no database", *(raw[: rng.randrange(len(raw))] for _ in range(10))]


def listed_by_another(root: Path) -> list[EpisodeSummary]:
    """By a store that is opened and closed here."""
    return EpisodeStore(root).list()


def test_a_damaged_index_is_rebuilt_and_nothing_is_lost(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listed = many(root, 30)
    store = EpisodeStore(root)
    store.label(listed[0].id, None, "operator", "unclear")
    store.label(listed[1].id, True, "operator", "it did")
    del store
    settle(root, monkeypatch)
    path, rng, unchecked = root / index.NAME, random.Random(4), 0
    wanted = listed_by_another(root)
    assert not path.with_name(index.NAME + "-wal").exists(), "one file is left when the last store is closed"
    assert [each.success for each in wanted[:2]] == [None, True]
    whole, found = path.read_bytes(), index_database.IndexDatabase.damage
    for data in damages(path, rng):
        path.write_bytes(data)
        assert listed_by_another(root) == wanted
        path.write_bytes(data)
        monkeypatch.setattr(index_database.IndexDatabase, "damage", lambda self: [])
        try:
            unchecked += listed_by_another(root) != wanted
        except ValueError:  # a text that is no JSON any more
            unchecked += 1
        monkeypatch.setattr(index_database.IndexDatabase, "damage", found)
        path.write_bytes(whole)
    assert unchecked > 0, "negative control: without the check a flipped bit changes a list"
    assert any("index of episodes" in each.getMessage() for each in caplog.records)
    assert not any("memory" in each.getMessage() for each in caplog.records), "in its place, each time"
    path.unlink()
    assert listed_by_another(root) == wanted


def test_where_the_index_has_no_place_lists_and_labels_work(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / index.NAME).mkdir()
    listed = many(root, 5)
    with caplog.at_level(logging.WARNING):
        store = EpisodeStore(root)
        assert store.list() == listed
    assert "kept in memory" in caplog.text
    store.label(listed[0].id, None, "operator")
    written = store.write(make_episode())
    assert store.summary(written.id) == written
    assert store.list()[1:] != listed, "the label counts"
    assert store.list()[0].success is None


def test_the_index_is_closed_to_other_users(root: Path) -> None:
    store = EpisodeStore(root)
    store.write(make_episode())
    store.list()
    modes = {path.name: path.stat().st_mode & 0o077 for path in root.iterdir() if index.NAME in path.name}
    assert len(modes) >= 3
    assert set(modes.values()) == {0}


def test_a_page_of_a_robot_that_never_succeeded_reads_few_rows(root: Path) -> None:
    """The successes of one robot among many episodes: by an index of both, in order, not by walking the robot's."""
    many(root, 3)
    store = EpisodeStore(root)
    selection = EpisodeSelection(robots=("arm-0",), label="success")
    sql, values = where(conditions(selection, datetime.now(timezone.utc)))
    plan = store._index._database.read(
        f"EXPLAIN QUERY PLAN SELECT id FROM episodes WHERE {sql} ORDER BY created DESC, id DESC LIMIT 20", values
    )
    told = " ".join(str(row[-1]) for row in plan)
    assert "by_robot_and_outcome (robot_id=? AND success=?)" in told
    assert "TEMP B-TREE" not in told
