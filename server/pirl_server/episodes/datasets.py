"""Datasets: lists of episodes that are frozen under a name, each with the hash of its content and its label.

A dataset is one file, written once. Later labels do not change what it says, and an episode that was changed or is
missing is named. Its hash is that over the lines `ID MANIFEST-SHA256 LABEL`, which a checkpoint's lineage has too. The
file has a check of everything in it, since its author and selection are not in that hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import check_name, sync, utc_now
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.fields import parse
from pirl_server.episodes.index_rows import EpisodeEntry

FOLDER = "datasets"


@dataclass(frozen=True)
class Frozen:
    """One episode of a dataset."""

    id: str
    digest: str
    """SHA-256 of its manifest"""
    success: bool | None
    label_source: str
    created: str

    @property
    def line(self) -> str:
        """What the dataset's hash is taken over."""
        return f"{self.id} {self.digest} {self.success}\n"


@dataclass(frozen=True)
class Dataset:
    """A frozen list, newest first."""

    name: str
    created: str
    """ISO 8601, UTC"""
    author: str
    selection: EpisodeSelection
    """that it was made with"""
    episodes: tuple[Frozen, ...]

    @property
    def sha256(self) -> str:
        """Of which episodes it has, with which content and labels."""
        return content_hash(self.episodes)


def content_hash(episodes: Iterable[Frozen]) -> str:
    """SHA-256 over the sorted lines."""
    return hashlib.sha256("".join(sorted(each.line for each in episodes)).encode()).hexdigest()


class Datasets:
    """Those of one store."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._ids: tuple[list[str], set[str]] = [], set()

    def create(
        self, name: str, entries: Sequence[EpisodeEntry], selection: EpisodeSelection, author: str = ""
    ) -> Dataset:
        """Freeze these under a name that is not taken. Raises ValueError for a name that is, and for no episodes."""
        check_name("dataset", name)
        if not entries:
            raise ValueError(f"dataset '{name}': no episode satisfies the selection")
        frozen = tuple(
            Frozen(each.summary.id, each.digest, each.summary.success, each.summary.label_source, each.summary.created)
            for each in entries
        )
        made = Dataset(name, utc_now(), author, selection, frozen)
        self._folder.mkdir(exist_ok=True)
        staged = self._folder / f".{name}.{os.getpid()}"
        try:
            content = asdict(made) | {"sha256": made.sha256}
            staged.write_text(json.dumps(content | {"check": _check(content)}, indent=1))
            sync(staged)
            os.link(staged, self._path(name))  # never over another one
        except FileExistsError:
            raise ValueError(f"dataset '{name}' is there already, and is never changed: choose another name") from None
        finally:
            staged.unlink(missing_ok=True)
        sync(self._folder)
        return made

    def get(self, name: str) -> Dataset:
        """Read one. Raises KeyError for an unknown name, ValueError for a file that was changed."""
        try:
            raw = json.loads(self._path(name).read_text())
            return _dataset(name, raw)
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(name) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"dataset '{name}' can't be read: '{self._path(name)}': {error}") from None

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(path.stem for path in self._folder.glob("*.json")) if self._folder.is_dir() else []

    def ids(self) -> set[str]:
        """Return the ids of all episodes of all datasets. Raises ValueError for a dataset that can't be read."""
        names, known = self.names(), self._ids
        if names != known[0]:  # a dataset is never changed
            known = self._ids = names, {each.id for name in names for each in self.get(name).episodes}
        return known[1]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def faults(dataset: Dataset, digests: dict[str, str]) -> list[str]:
    """Say of each episode that is missing or was changed that it is; `digests` are those of the store now, by id."""
    found = []
    for each in dataset.episodes:
        if each.id not in digests:
            found.append(f"episode '{each.id}' is missing")
        elif digests[each.id] != each.digest:
            found.append(f"episode '{each.id}' was changed: its manifest is not the one that was frozen")
    return found


def _dataset(name: str, raw: dict[str, Any]) -> Dataset:
    content = {key: value for key, value in raw.items() if key != "check"}
    if raw["check"] != _check(content):
        raise ValueError("it was changed after it was written (its check differs)")
    episodes = tuple(Frozen(**each) for each in raw["episodes"])
    found = Dataset(raw["name"], raw["created"], raw["author"], parse(EpisodeSelection, raw["selection"]), episodes)
    if found.name != name or found.sha256 != raw["sha256"]:
        raise ValueError("it was changed after it was written (SHA-256 differs)")
    return found


def _check(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
