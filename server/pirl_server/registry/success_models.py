"""Success models on disk: each a head and a card under the hash of both, over a backbone that several may share.

root/versions/<version>/card.json           `SuccessCard`
                       /head.safetensors    weights of the head
root/backbones/<hash>/                      config, preprocessor and safetensors as transformers reads them

A version is never changed once it is there. Nothing here opens the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import check_name, make_folder, read_json, sync, write_json

CARD, HEAD, BACKBONE = "card.json", "head.safetensors", "backbone"
LATEST = "latest"
"""name of the newest version"""


@dataclass(frozen=True)
class SuccessCard:
    """What a success model reads, how sure it is, and what it was learnt from."""

    task: str
    instructions: tuple[str, ...]
    """sentences of the episodes that it learnt from; it judges no others"""
    contract_hash: str
    """contract of robot and policy of those episodes; it judges no others"""
    cameras: tuple[str, ...]
    """whose final images it reads, in order"""
    state: bool
    """whether it reads the final state"""
    backbone: str
    """hash of its files"""
    backbone_source: str
    """where it is from: a folder's name, or a name on the hub"""
    backbone_revision: str
    """commit on the hub; empty: a folder"""
    grid: int
    """cells a side"""
    head: Mapping[str, int]
    """sizes of the head"""
    temperature: float
    """logits are divided by it"""
    threshold: float | None
    """confidence from which labels are proposed; null: it is not reliable enough to propose any"""
    measures: Mapping[str, Any]
    """on episodes that it did not learn from: AUC, calibration, what the threshold gives"""
    lineage: Mapping[str, str]
    """which episodes, with which hash; seed and settings; versions of the libraries"""
    created: str = ""
    """ISO 8601, UTC"""
    job: str = ""
    """that made it; empty: none"""
    version: str = ""
    """hash of card and head, without these last three"""


_CARD = TypeAdapter(SuccessCard)


class SuccessModels:
    """Those of one server. Any number of processes may add and read."""

    def __init__(self, root: Path) -> None:
        self._versions, self._backbones = root / "versions", root / "backbones"
        self._checked: dict[str, tuple[list[tuple[int, int, int]], SuccessCard]] = {}
        """cards whose files were hashed, with what changes when a file does"""

    def add(self, folder: Path) -> SuccessCard:
        """Copy in what a job wrote: card, head and a folder `backbone`; a version that is there stays as it is.

        Raises OSError when the disk rejects it: nothing of it can be found then.
        """
        version = version_of(folder)
        card = _read_card(folder / CARD)
        _copy_in(folder / BACKBONE, self._backbones / card.backbone)
        home = self._versions / version
        _copy_in(folder, home)
        return self.get(version)

    def get(self, version: str) -> SuccessCard:
        """Read a card by version, or the newest by the name `latest`.

        Raises KeyError for an unknown one, ValueError for files that were changed.
        """
        if version == LATEST:
            found, _ = self.list()
            if not found:
                raise KeyError(version)
            return found[0]
        home = self.path(version)
        if not (home / CARD).is_file():
            raise KeyError(version)
        stamps = [_stamp(home / name) for name in (CARD, HEAD)]
        before, card = self._checked.get(version, ([], None))
        if card is None or before != stamps:
            card = replace(_read_card(home / CARD), version=version)
            if version_of(home) != version:
                raise ValueError(f"success model '{version}' was changed after it was written: train another one")
            self._checked[version] = stamps, card
        return card

    def list(self) -> tuple[list[SuccessCard], dict[str, str]]:
        """Return all cards, newest first, and of those that can't be read their versions and why."""
        found, damaged = [], dict[str, str]()
        names = sorted(path.name for path in self._versions.glob("[!.]*")) if self._versions.is_dir() else []
        for name in names:
            try:
                found.append(self.get(name))
            except KeyError:
                damaged[name] = f"it has no {CARD}"
            except (ValueError, OSError) as error:
                damaged[name] = str(error)
        return sorted(found, key=lambda card: (card.created, card.version), reverse=True), damaged

    def path(self, version: str) -> Path:
        """Return the folder of a version, whether it is there or not. Raises KeyError for what is no name of one."""
        try:
            return self._versions / check_name("success model", version)
        except ValueError:
            raise KeyError(version) from None

    def backbone(self, card: SuccessCard) -> Path:
        """Return the folder of a model's backbone."""
        return self._backbones / check_name("backbone", card.backbone)


def write_card(folder: Path, card: SuccessCard) -> None:
    """Write the card of a model that is being made."""
    values = asdict(card)
    del values["version"]
    write_json(folder / CARD, values)


def version_of(folder: Path) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 over card and head, without when and by which job.

    Raises ValueError for files that can't be read.
    """
    card = read_json(folder / CARD)
    if not isinstance(card, dict):
        raise ValueError(f"'{folder / CARD}' can't be read: it holds no JSON object")
    content = {name: value for name, value in card.items() if name not in ("created", "job")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    try:
        digest.update((folder / HEAD).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"'{folder / HEAD}' is missing") from None
    return digest.hexdigest()[:12]


def _read_card(path: Path) -> SuccessCard:
    raw = read_json(path)
    try:
        return _CARD.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"'{path}' can't be read: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _copy_in(source: Path, home: Path) -> None:
    """Copy the plain files of a folder: there as a whole, or not at all."""
    if home.is_dir():
        return
    make_folder(home.parent)
    staged = home.with_name(f".{uuid.uuid4().hex}")
    staged.mkdir()
    try:
        for entry in sorted(source.iterdir()):
            if entry.is_file():
                sync(Path(shutil.copyfile(entry, staged / entry.name)))
        sync(staged)
        os.rename(staged, home)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        if not home.is_dir():  # else another process added the same content first: the same result
            raise
    sync(home.parent)
