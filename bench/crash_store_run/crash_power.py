"""Power cuts: the disk as it may be afterwards, built from a journal, and a store that is opened on it.

What counts as durable is what POSIX promises and no more: a file's bytes when it was forced, the entries of a folder
when that folder was. All else is there or not, each by chance: an entry that was made, renamed or removed; and of a
file that was written but not forced nothing, a part, its length with zeros, or everything.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from crash_episodes import Found, Promised, again, fingerprint, looked_at, made
from crash_journal import FILES, FOLDERS, INDEX, Event, Journal, recording

from pirl_server.episodes.store import EpisodeStore

STORE = "runs/server/episodes"
CHANCES = (0.0, 0.5, 1.0)
"""that something which was not forced is there all the same"""


class Node:
    """A file or a folder, with what is durable of it."""

    def __init__(self, folder: bool) -> None:
        self.folder = folder
        self.now: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.pending: list[tuple[str, Node | None]] = []
        self.content = b""
        self.dirty = False
        self.contents: list[tuple[int, bytes]] = []
        """of a file: content when it was forced, by the number of the event, and at the end"""

    def put(self, name: str, node: Node | None) -> None:
        """Change an entry, which is pending until this folder is forced."""
        self.pending.append((name, node))
        if node is None:
            self.now.pop(name, None)
        else:
            self.now[name] = node


class Disk:
    """The tree after the first events of a journal."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.root, self.index = Node(folder=True), dict[str, bytes]()
        self.nodes: list[Node] = []
        for number, event in enumerate(events):
            with suppress(KeyError):  # told before it is done: what has no parent, or is not there, has failed
                self._apply(number, event)

    def at(self, path: str) -> Node:
        """Find what is at a path. Raises KeyError."""
        node = self.root
        for name in path.split("/") if path else ():
            node = node.now[name]
        return node

    def _apply(self, number: int, event: Event) -> None:
        folder, _, name = event.path.rpartition("/")
        if event.kind == "make":
            self._make(folder, name, is_folder=True)
        elif event.kind == "open":
            self._make(folder, name, is_folder=False).dirty = True
        elif event.kind == "rename":
            node, (target, _, new) = self.at(event.path), event.other.rpartition("/")
            self.at(target).put(new, node)
            self.at(folder).put(name, None)
        elif event.kind == "remove":
            self.at(folder).put(name, None)
        elif event.kind == "sync folder":
            node = self.at(event.path)
            node.durable, node.pending = dict(node.now), []
        elif event.kind == "sync file":
            node = self.at(event.path)
            node.content, node.dirty = event.content, False
            node.contents.append((number, event.content))
        else:
            self.index = event.index or self.index

    def _make(self, folder: str, name: str, is_folder: bool) -> Node:
        parent = self.at(folder)
        if name not in parent.now:
            parent.put(name, Node(is_folder))
            self.nodes.append(parent.now[name])
        return parent.now[name]


@dataclass
class Cuts:
    """What was found after power cuts."""

    cuts: int = 0
    events: int = 0
    acknowledged: int = 0
    labels: int = 0
    visible: int = 0
    damaged: int = 0
    swept: int = 0
    lost: int = 0
    corrupt: int = 0
    faults: list[str] = field(default_factory=list)


def recorded(folder: Path, episodes: int, forced: tuple[str, ...] = (FOLDERS, FILES)) -> tuple[Journal, Promised]:
    """Let a server's store be made, written to and labelled; return what happened. Nothing of it exists before."""
    episode, journal = made(16, 4), Journal(folder, forced)
    with recording(journal):
        store = EpisodeStore(folder / STORE)
        for number in range(episodes):
            own = again(episode)
            store.write(own)
            journal.told("written", own.info.id)
            for label in (True, False)[: number % 3]:
                journal.told("asked", f"{label:d} {own.info.id}")
                store.label(own.info.id, label, "operator")
                journal.told("labelled", f"{label:d} {own.info.id}")
    return journal, Promised(fingerprint(episode))


def power_cuts(
    folder: Path, cuts: int, episodes: int, forced: tuple[str, ...] = (FOLDERS, FILES), seed: int = 0
) -> Cuts:
    """Cut the power so often, each time at a random event of one recorded run."""
    (folder / "run").mkdir(parents=True)
    journal, promised = recorded(folder / "run", episodes, forced)
    later = _contents(journal)
    rng, tally = random.Random(seed), Cuts(events=len(journal.events))
    for _ in range(cuts):
        cut, there = rng.randrange(1, len(journal.events) + 1), folder / "cut"
        disk = Disk(journal.events[:cut])
        chance = rng.choice(CHANCES)
        _restore(disk.root, _numbered(disk, later), cut, there, rng, chance)
        _restore_index(disk, there, rng)
        _check(there / STORE, _promised(journal.events[:cut], promised.whole), tally)
        shutil.rmtree(there)
    return tally


def _contents(journal: Journal) -> list[list[tuple[int, bytes]]]:
    """By node, in the order in which they were made: what was in it later. Raises RuntimeError for a poor journal."""
    disk, found = Disk(journal.events), set[str]()

    def compare(node: Node, path: Path) -> None:
        for name, entry in node.now.items():
            found.add(str(path / name))
            if entry.folder:
                compare(entry, path / name)
            else:
                entry.contents.append((len(journal.events), (path / name).read_bytes()))

    compare(disk.root, journal.folder)
    there = {str(path) for path in journal.folder.rglob("*") if not path.name.startswith("index.sqlite-")}
    if missed := there ^ found:
        raise RuntimeError(f"the journal is not what happened: {sorted(missed)}")
    return [node.contents for node in disk.nodes]


def _numbered(disk: Disk, later: list[list[tuple[int, bytes]]]) -> dict[int, list[tuple[int, bytes]]]:
    return {id(node): later[number] for number, node in enumerate(disk.nodes)}


def _restore(
    node: Node, later: dict[int, list[tuple[int, bytes]]], cut: int, path: Path, rng: random.Random, chance: float
) -> None:
    """Write what a folder may be after the cut."""
    entries = dict(node.durable)
    for name, entry in node.pending:
        if rng.random() < chance:
            entries.pop(name, None)
            entries |= {name: entry} if entry is not None else {}
    path.mkdir(parents=True)
    for name, entry in entries.items():
        if entry.folder:
            _restore(entry, later, cut, path / name, rng, chance)
            continue
        content = entry.content
        if entry.dirty:
            written = next((each for number, each in later[id(entry)] if number >= cut), b"")
            content = _torn(content, written, rng) if rng.random() < max(chance, 0.5) else content
        (path / name).write_bytes(content)


def _torn(durable: bytes, written: bytes, rng: random.Random) -> bytes:
    """What may be left of a file that was written and not forced."""
    kept = rng.randrange(len(durable), len(written) + 1) if len(written) >= len(durable) else len(durable)
    return rng.choice([durable, written[:kept], written[:kept] + bytes(len(written) - kept), written])


def _restore_index(disk: Disk, there: Path, rng: random.Random) -> None:
    """Put the index there as it was at the last acknowledgement, each of its files whole, torn or not at all."""
    for name, content in disk.index.items():
        if (there / name).parent.is_dir() and Path(name).name in INDEX and rng.random() < 0.8:
            (there / name).write_bytes(_torn(b"", content, rng))


def _promised(events: Sequence[Event], whole: str) -> Promised:
    promised = Promised(whole)
    for event in events:
        if event.kind == "written":
            promised.episodes.add(event.path)
        elif event.kind in ("asked", "labelled"):
            of = promised.asked if event.kind == "asked" else promised.labels
            of[event.path[2:]] = event.path[0] == "1"
    return promised


def _check(root: Path, promised: Promised, tally: Cuts) -> None:
    found: Found = looked_at(root, promised)
    store, more = EpisodeStore(root), again(made(16, 4))
    store.write(more)
    store.label(more.info.id, True, "operator")
    if EpisodeStore(root).summary(more.info.id).success is not True:
        tally.faults.append("what was written after a cut has not its label")
    tally.cuts += 1
    tally.acknowledged += len(promised.episodes)
    tally.labels += len(promised.labels)
    tally.visible += found.listed
    tally.damaged += found.damaged
    tally.swept += found.swept
    tally.lost += len(found.lost) + len(found.labels_lost)
    tally.corrupt += len(found.corrupt) + len(found.unnamed)
    tally.faults += found.faults
