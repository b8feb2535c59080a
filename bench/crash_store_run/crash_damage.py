"""Flipped bits and cut files: what the store says of each, and what it returns."""

from __future__ import annotations

import os
import random
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crash_episodes import again, fingerprint, made

from pirl_server.episodes import manifest
from pirl_server.episodes.schema import EpisodeInfo
from pirl_server.episodes.store import GROUP, EpisodeStore

OLD = (1_700_000_000, 1_700_000_000)
CUTS = 4
"""every fourth damage is a cut, the others are flips"""
KINDS = ("arrays", "headers of members", "table of contents", "manifest", "label log", "index")


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
        for path in self.root.rglob("*"):
            os.utime(path, OLD)
        list(EpisodeStore(self.root).list())
        self.info: EpisodeInfo = EpisodeStore(self.root).open(self.victim.id).info
        self.listed = EpisodeStore(self.root).list()
        self._kept = folder / "kept"
        del store
        shutil.copytree(self.root, self._kept)

    def restore(self) -> None:
        """Put everything back."""
        shutil.rmtree(self.root)
        shutil.rmtree(self.root.with_name("quarantine"), ignore_errors=True)
        shutil.copytree(self._kept, self.root)

    def file(self, kind: str) -> Path:
        """The file of a kind."""
        names = {"manifest": self.home / manifest.NAME, "label log": self.root / "labels.jsonl"}
        return names.get(kind, self.root / "index.sqlite" if kind == "index" else self.home / GROUP)

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
    """Damage each kind of file so often; what has no file in this version has no row."""
    victim, rows = Victim(folder), dict[str, Row]()
    for kind in KINDS:
        if not victim.file(kind).exists():
            continue
        rng, row = random.Random(kind), Row()
        for number in range(tries):
            what = _damage(victim, kind, rng, cut=number % CUTS == 0)
            _look(victim, kind, what, row)
            victim.restore()
        rows[kind] = row
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


def totals(rows: dict[str, Row]) -> Iterator[tuple[str, int]]:
    """Sum over the kinds."""
    yield from sum((Counter({"tries": row.tries, "missed": row.missed}) for row in rows.values()), Counter()).items()
