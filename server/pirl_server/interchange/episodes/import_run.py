"""Imports the episodes of a source into a store: each whole or not at all, and each once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pirl_server.config.interchange import ImportEpisodes
from pirl_server.episodes.store import EpisodeStore
from pirl_server.interchange.checkpoints.robot_contract import read_contract
from pirl_server.interchange.episodes.formats import Progress, Source, importer, recognise


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    imported: int
    already: int
    """were in the store before"""
    left: int
    """were not reached, because the import was cancelled"""
    lines: tuple[str, ...]
    """what was chosen, for a person to compare with what they know of the data"""


def open_path(spec: ImportEpisodes) -> Source:
    """Open and check a recording. Raises ValueError that names what is wrong and the fix."""
    contract = None if spec.contract is None else read_contract(Path(spec.contract))
    path = Path(spec.path)
    return importer(recognise(path, spec.format))(path, spec, contract)


def import_episodes(spec: ImportEpisodes, store: EpisodeStore, progress: Progress) -> Imported:
    """Import what the store does not have yet. One that was killed continues where it was, when it is started again.

    Raises ValueError as `open_path`, and for an episode that can't be read; those before it are in the store.
    """
    source = open_path(spec)
    known = {each.id for each in store.list()}
    imported = already = 0
    total = len(source)
    for number, candidate in enumerate(source):
        if progress.cancelled:
            break
        if candidate.id in known or candidate.same_as in known:
            already += 1
        else:
            store.write(candidate.read())
            known.add(candidate.id)
            imported += 1
        progress.progress(number + 1, total, candidate.name)
    return Imported(imported, already, total - imported - already, tuple(source.lines))
