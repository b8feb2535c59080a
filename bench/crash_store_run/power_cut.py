"""Power cuts by what the program has forced to the disk: nothing else is certain to be there afterwards.

`os.fsync` is watched: of a file its content is kept at that moment, of a directory the names that it has. At the cut a
tree is built of these alone, or, as a disk may also have stored more, with some of the later names and contents, whole
or in part, chosen at random. SQLite forces its file by itself, unseen here: the index comes back empty, as it was at
the cut, or cut short. Nothing may be deleted while it is watched: a number of a file could be given twice.
"""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from episodes import Acknowledged, added, another, check

from pirl_server.episodes import index
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore

Names: TypeAlias = "dict[str, tuple[int, bool]]"
"""name -> number of the file, whether it is a directory"""


class PowerCutError(BaseException):
    """The program does not get beyond this point."""


class Disk:
    """What is on it for certain."""

    def __init__(self, cut_at: int, works: bool = True) -> None:
        self._cut_at, self._works, self._lock, self._sync = cut_at, works, threading.Lock(), os.fsync
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, Names] = {}
        self.syncs = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch until the power is cut."""
        os.fsync = self._fsync  # type: ignore[assignment]
        try:
            yield
        except PowerCutError:
            return
        finally:
            os.fsync = self._sync

    def _fsync(self, descriptor: int) -> None:
        with self._lock:
            if self.syncs >= self._cut_at:
                raise PowerCutError
            self.syncs += 1
            if self._works:
                self.keep(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def keep(self, path: Path) -> None:
        """Remember a file or directory as it is."""
        number = path.stat().st_ino
        if path.is_dir():
            self.names[number] = names_of(path)
        else:
            self.contents[number] = path.read_bytes()


def names_of(folder: Path) -> Names:
    found: Names = {}
    for entry in os.scandir(folder):
        found[entry.name] = entry.inode(), stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)
    return found


def after(disk: Disk, root: Path, out: Path, rng: random.Random | None) -> None:
    """Build what is found when the power is back; `rng` mixes in what the disk may have stored beside."""
    now = {path.stat().st_ino: path for path in (root, *root.rglob("*"))}
    _folder(disk, root.stat().st_ino, out, now, rng)
    for path in root.glob(f"{index.NAME}*"):
        if rng is not None and rng.random() < 0.7:
            raw = path.read_bytes()
            (out / path.name).write_bytes(raw if rng.random() < 0.6 else raw[: rng.randrange(len(raw) + 1)])


def _folder(disk: Disk, number: int, out: Path, now: dict[int, Path], rng: random.Random | None) -> None:
    out.mkdir()
    names = disk.names.get(number, {})
    if rng is not None and number in now and rng.random() < 0.5:
        later = names_of(now[number])
        names = names | {name: each for name, each in later.items() if rng.random() < 0.5}
    for name, (child, is_folder) in names.items():
        if name.startswith((index.NAME, f".{index.NAME}")):
            continue
        if is_folder:
            _folder(disk, child, out / name, now, rng)
            continue
        raw = disk.contents.get(child, b"")
        if rng is not None and child in now and rng.random() < 0.5:
            later_raw = now[child].read_bytes()
            raw = max(raw, later_raw[: rng.randrange(len(later_raw) + 1)], key=len)
        (out / name).write_bytes(raw)


def cut(folder: Path, episode: Episode, cuts: int, works: bool = True, seed: int = 0) -> dict[str, int]:
    """Write, label, and cut the power before a random one of the forced writes; look at what is left.

    Without `works` forcing does nothing: the control, which must lose something.
    """
    rng, total = random.Random(seed), dict[str, int]()
    for number in range(cuts):
        home = folder / f"cut{number}"
        home.mkdir()
        root, back = home / "root" / "episodes", home / "back"
        (home / "root").mkdir()
        disk, wanted = Disk(rng.randrange(2, 40), works), Acknowledged()
        with disk.watched():
            store = EpisodeStore(root)
            for turn in range(4):
                said = store.write(another(episode, f"arm-{turn % 2}"))
                wanted.episodes.add(said.id)
                store.label(said.id, True, "operator")
                wanted.labels[said.id] = True
        del store
        after(disk, home / "root", back, rng if number % 2 else None)
        found = check(back / "episodes", wanted, episode) if (back / "episodes").is_dir() else _nothing(wanted)
        added(total, found | {"cuts": 1, "acknowledged": len(wanted.episodes)})
        _remove(home)
    del total["episodes"]
    return total


def _nothing(wanted: Acknowledged) -> dict[str, int]:
    lost = {"acknowledged episodes lost": len(wanted.episodes), "acknowledged labels lost": len(wanted.labels)}
    return lost | {"corrupt episodes visible": 0, "episodes": 0}


def _remove(home: Path) -> None:
    for path in sorted(home.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    home.rmdir()
