"""MANIFEST.json: summary, size and SHA-256 of every file of a published directory, and its crash-safe write.

The manifest begins with its own SHA-256, taken over its bytes with zeros in that place. Those of earlier versions have
none: their form is all that can be checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import sync, sync_all

NAME = "MANIFEST.json"
_HEAD, _UNSET = b'{\n "sha256": "', b"0" * 64


class DamagedError(ValueError):
    """A file contradicts its hash, or the manifest its form: it was changed after publishing."""


class UnreadableError(ValueError):
    """Files are missing or added, or another version wrote them: it may be whole elsewhere, or still being copied."""


@dataclass(frozen=True)
class Manifest:
    """What a manifest says."""

    summary: dict[str, Any]
    files: dict[str, tuple[int, str]]
    """by path relative to the directory: bytes and SHA-256"""
    checked: bool
    """it has a SHA-256 of itself, and that is right"""
    digest: str
    """what names the content: the manifest's own SHA-256, or that of the one it had before it was migrated"""


def seal(directory: Path, summary: dict[str, Any], digest: str = "") -> None:
    """Write the manifest of all files below `directory` and force them to the disk, the manifest last.

    `digest`: that of the same content in an earlier layout.
    """
    sync_all([*_files(directory), *_folders(directory)])
    write(directory, summary, digest)
    sync(directory / NAME)
    sync(directory)


def write(directory: Path, summary: dict[str, Any], digest: str = "") -> None:
    """Write the manifest of all files below `directory`, for whom a crash costs nothing."""
    files = {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in _files(directory)
    }
    earlier = {"digest": digest} if digest else {}
    content = {"sha256": _UNSET.decode(), **earlier, "summary": summary, "files": files}
    unset = json.dumps(content, indent=1).encode()
    (directory / NAME).write_bytes(unset.replace(_UNSET, hashlib.sha256(unset).hexdigest().encode(), 1))


def read(directory: Path) -> Manifest:
    """Return the manifest when every file it names is there in full length.

    Raises DamagedError, UnreadableError, and OSError when the disk does not give the manifest.
    """
    path = directory / NAME
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableError(f"'{path}' is missing: incomplete, or not an episode") from None
    manifest = _parse(path, raw)
    for name, (size, _) in manifest.files.items():
        try:
            found = os.stat(f"{directory}/{name}").st_size
        except (FileNotFoundError, NotADirectoryError):
            raise UnreadableError(f"'{directory}': '{name}' is missing") from None
        except ValueError as error:  # a NUL in the name
            raise DamagedError(f"'{path}' can't be read: {error}") from None
        if found != size:
            raise UnreadableError(f"'{directory}': '{name}' has {found} bytes, not {size}: incomplete")
    return manifest


def verify(directory: Path, beside: Collection[str] = ()) -> Manifest:
    """Return the manifest after comparing every file with it.

    Raises DamagedError, UnreadableError and OSError as `read`, for the first file that is missing, additional or other.
    Of the entries of the directory that `beside` names, those with no file in the manifest may be there.
    """
    manifest = read(directory)
    check_names(directory, manifest, beside)
    for name, (_, digest) in manifest.files.items():
        if _digest(directory / name) != digest:
            raise DamagedError(f"'{directory}': '{name}' was changed after publishing (SHA-256 differs)")
    return manifest


def check_names(directory: Path, manifest: Manifest, beside: Collection[str] = ()) -> None:
    """Raise UnreadableError for a file that is not in the manifest, but for `beside` as in `verify`."""
    listed = {name.partition("/")[0] for name in manifest.files}
    entries = [entry for entry in directory.iterdir() if entry.name in listed or entry.name not in {*beside, NAME}]
    found = [path for entry in entries for path in ([entry] if entry.is_file() else _files(entry))]
    for name in sorted({path.relative_to(directory).as_posix() for path in found} - set(manifest.files)):
        raise UnreadableError(f"'{directory}': '{name}' is not in the manifest")


def _parse(path: Path, raw: bytes) -> Manifest:
    checked = raw.startswith(_HEAD)
    if checked:
        start, end = len(_HEAD), len(_HEAD) + len(_UNSET)
        if hashlib.sha256(raw[:start] + _UNSET + raw[end:]).hexdigest().encode() != raw[start:end]:
            raise DamagedError(f"'{path}' was changed after publishing (SHA-256 differs)")
    try:
        parsed = json.loads(raw)
        if parsed.keys() - {"sha256", "digest"} != {"summary", "files"} or ("sha256" in parsed) != checked:
            raise KeyError(", ".join(parsed))
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in parsed["files"].items()}
        parsed["summary"].keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"'{path}' can't be read: {error!r}") from None
    digest = str(parsed.get("digest") or hashlib.sha256(raw).hexdigest())
    return Manifest(parsed["summary"], files, checked, digest)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _folders(directory: Path) -> list[Path]:
    return sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
