"""Flipped bits and cut files: what the store says of each, and what it returns."""

from __future__ import annotations

import gc
import os
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from crash_episodes import again, fingerprint, made

from pirl_server.episodes import index, manifest
from pirl_server.episodes.schema import EpisodeInfo
from pirl_server.episodes.store import ANY, GROUP, EpisodeStore

OLD = (1_700_000_000, 1_700_000_000)
CUTS = 4
"""every fourth damage is a cut, the others are flips"""
KINDS = ("arrays", "headers of members", "table of contents", "manifest", "label log", "index", "dataset")


@dataclass
class Row:
    """Of one kind of file."""

    tries: int = 0
    found: int = 0
    """by the store that lists and opens"""
    put_away: int = 0
    """of those: moved into quarantine; the others are named and left, or read again from what is whole"""
    unread: int = 0
    """nothing reads these bytes: what is returned is what was written"""
    verified: int = 0
    """of those: found by `pirl episodes verify`"""
    missed: int = 0
    """something else was returned, without an error"""
    faults: list[str] = field(default_factory=list)


class Victim:
    """A store of two labelled episodes, one of which is damaged and put back again and again."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "episodes"
        store, episode = EpisodeStore(self.root), made(12, 3)
        self.whole = fingerprint(episode)
        self.neighbour, self.victim = (store.write(again(episode)) for _ in range(2))
        for id_ in (self.neighbour.id, self.victim.id):
            store.label(id_, True, "operator")
            store.label(id_, False, "operator", "it fell")
        self.home = (self.root / self.victim.path).parent
        self.frozen = store.datasets.create("all", list(store.select(ANY)), ANY)
        for path in self.home.parent.rglob("*"):
            os.utime(path, OLD)
        time.sleep(2 * index.HOT_NS / 1e9)  # what has changed just now is read again, whatever the index says
        self.listed = EpisodeStore(self.root).list()
        self.info: EpisodeInfo = EpisodeStore(self.root).open(self.victim.id).info
        del store
        gc.collect()  # and with it the index is one file
        self._kept = {kind: self.file(kind).read_bytes() for kind in KINDS}

    def restore(self, kind: str) -> None:
        """Put everything back; what was not damaged is not touched, so that the index knows it."""
        gc.collect()
        away = self.root.with_name("quarantine") / "episodes"
        if (away / self.home.name).is_dir():
            (away / self.home.name).rename(self.home)
        shutil.rmtree(away, ignore_errors=True)
        for name in ("index.sqlite-wal", "index.sqlite-shm"):
            (self.root / name).unlink(missing_ok=True)
        for changed in (kind, "index"):
            self.file(changed).write_bytes(self._kept[changed])

    def file(self, kind: str) -> Path:
        """The file of a kind."""
        names = {
            "manifest": self.home / manifest.NAME, "label log": self.root / "labels.jsonl",
            "index": self.root / index.NAME, "dataset": self.root / "datasets" / "all.json",
        }  # fmt: skip
        return names.get(kind, self.home / GROUP)

    def spans(self, kind: str) -> list[range]:
        """Bytes of the file that are of this kind."""
        path = self.file(kind)
        if path.name != GROUP:
            return [range(path.stat().st_size)]
        data, headers, table = list[range](), list[range](), 0
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with path.open("rb") as file:
                    file.seek(entry.header_offset + 26)
                    start = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
                headers.append(range(entry.header_offset, start))
                data.append(range(start, start + entry.file_size))
                table = max(table, start + entry.file_size)
        return {"arrays": data, "headers of members": headers}.get(kind, [range(table, path.stat().st_size)])


def damages(folder: Path, tries: int) -> dict[str, Row]:
    """Damage each kind of file so often, in a store that was at rest before."""
    with patch.object(index, "YOUNG_NS", 0):
        victim, rows = Victim(folder), {kind: Row() for kind in KINDS}
        for kind, row in rows.items():
            rng = random.Random(kind)
            for number in range(tries):
                what = _damage(victim, kind, rng, cut=number % CUTS == 0)
                _look(victim, kind, what, row)
                victim.restore(kind)
    return rows


def _damage(victim: Victim, kind: str, rng: random.Random, cut: bool) -> str:
    path, spans = victim.file(kind), victim.spans(kind)
    at = rng.choice([span for span in spans if span] if kind == "headers of members" else _weighed(spans, rng))
    place, data = rng.choice(at), bytearray(path.read_bytes())
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    os.utime(path, OLD)
    return f"{path.name} {'cut' if cut else 'flipped'} at {place}"


def _weighed(spans: list[range], rng: random.Random) -> list[range]:
    """One of them, the longer the likelier."""
    return rng.choices(spans, [len(span) for span in spans])


def _look(victim: Victim, kind: str, what: str, row: Row) -> None:
    store = EpisodeStore(victim.root)
    row.tries += 1
    listed = {each.id: each for each in store.list()}
    if victim.neighbour.id not in listed or fingerprint(store.open(victim.neighbour.id)) != victim.whole:
        row.faults.append(f"{what}: the other episode can't be read")
    if kind == "label log":
        _look_at_labels(victim, store, what, row)
    elif kind == "dataset":
        try:
            _count(row, store.datasets.get("all") == victim.frozen, found=False, what=what)
        except (ValueError, KeyError):
            row.found += 1
    elif kind == "index":
        _count(row, list(listed.values()) == victim.listed, found=False, what=what)
    else:
        _look_at_episode(victim, store, what, row)


def _look_at_labels(victim: Victim, store: EpisodeStore, what: str, row: Row) -> None:
    """A label that can't be read is named, or cut off; what is shown is then an earlier one, never an invented one."""
    shown = {each.id: each.success for each in store.list()}
    same = shown == dict.fromkeys(shown, False)
    whole = (victim.root / "labels.jsonl").read_bytes().endswith(b"\n")
    _count(row, same and whole, found=bool(store.degraded) or not whole, what=what)
    if not set(shown.values()) <= {True, False, None}:
        row.faults.append(f"{what}: a label that nobody gave")


def _look_at_episode(victim: Victim, store: EpisodeStore, what: str, row: Row) -> None:
    id_ = victim.victim.id
    try:
        episode = store.open(id_)
    except (ValueError, KeyError):
        row.found += 1
        row.put_away += (victim.root.with_name("quarantine") / "episodes" / id_).is_dir()
        if not victim.home.is_dir() and id_ not in store.damaged:
            store.list()
            row.faults += [] if id_ in store.damaged else [f"{what}: put away and not named"]
        return
    _count(row, fingerprint(episode) == victim.whole and episode.info == victim.info, found=False, what=what)
    row.verified += _raises(lambda: manifest.verify(victim.home))


def _count(row: Row, same: bool, found: bool, what: str) -> None:
    row.found += found
    if found:
        return
    row.unread += same
    row.missed += not same
    row.faults += [] if same else [f"{what}: returned as if it were whole"]


def _raises(act: Callable[[], object]) -> bool:
    try:
        act()
    except ValueError:
        return True
    return False
