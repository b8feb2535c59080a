"""Which code an evaluation ran: the release, and a digest of the sources that decide how an episode turns out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

DECIDING = ("pirl_contract", "pirl_sim", "pirl_server.algorithm", "pirl_server.model", "pirl_server.policy")
"""packages; and the evaluation itself"""


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return `RELEASE+DIGEST`: eight hexadecimal digits over the sources, which a checkout may change at any time."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(path.name.encode() + path.read_bytes())
    return f"{metadata.version('pirl')}+{digest.hexdigest()[:8]}"


def versions_of(packages: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """Return `NAME VERSION, ...` of those that are installed: here, or where `elsewhere` says which versions are."""
    if elsewhere:
        return ", ".join(f"{package} {elsewhere[package]}" for package in packages if package in elsewhere)
    found = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _sources() -> Iterable[Path]:
    yield Path(__file__).with_name("evaluate.py")
    for package in DECIDING:
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            for folder in spec.submodule_search_locations:
                yield from Path(folder).rglob("*.py")
