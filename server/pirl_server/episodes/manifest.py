"""MANIFEST.json: size and SHA-256 of every file of a published directory, and its crash-safe write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import sync

NAME = "MANIFEST.json"


def seal(directory: Path, summary: dict[str, Any]) -> None:
    """Write the manifest of all files below `directory` and force them to the disk, the manifest last."""
    files = {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in _files(directory)
    }
    for path in [*_files(directory), *_folders(directory)]:
        sync(path)
    manifest = directory / NAME
    manifest.write_text(json.dumps({"summary": summary, "files": files}, indent=1))
    sync(manifest)
    sync(directory)


def read(directory: Path) -> dict[str, Any] | None:
    """Return the manifest when every file it names is there in full length, None for a torn or foreign directory."""
    try:
        manifest = json.loads((directory / NAME).read_text())
        sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
        whole = all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole and isinstance(manifest.get("summary"), dict) else None


def verify(directory: Path) -> None:
    """Raise ValueError that names the first file which is missing, additional or not what the manifest says."""
    manifest = read(directory)
    if manifest is None:
        raise ValueError(f"{directory} has no manifest that matches its files: incomplete, or not an episode")
    found = {path.relative_to(directory).as_posix() for path in _files(directory)} - {NAME}
    for name in sorted(found ^ set(manifest["files"])):
        raise ValueError(f"{directory}: '{name}' is {'not in the manifest' if name in found else 'missing'}")
    for name, entry in manifest["files"].items():
        if _digest(directory / name) != entry["sha256"]:
            raise ValueError(f"{directory}: '{name}' was changed after publishing (SHA-256 differs)")


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
