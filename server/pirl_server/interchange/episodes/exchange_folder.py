"""The one folder below which jobs read and write episodes of other programs: what REST names can't be anywhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pirl_server.config.interchange import ExportEpisodes, ImportEpisodes


def checked(spec: ImportEpisodes | ExportEpisodes, folder: Path | None) -> ImportEpisodes | ExportEpisodes:
    """The same with its paths as they are on this machine.

    Raises ValueError without a folder, for a path that leads out of it, also by a link inside what is imported, for one
    to import that is not there, and for one to export to that is.
    """
    path = _below(folder, spec.path, "path")
    if isinstance(spec, ExportEpisodes):
        if path.exists():
            raise ValueError(f"'path' {spec.path!r} is there already: give a new folder")
        return replace(spec, path=str(path))
    if not path.exists():
        raise ValueError(f"'path' {spec.path!r} is not there: copy the recording to the server's --exchange folder")
    _check_links(path)
    contract = None if spec.contract is None else str(_below(folder, spec.contract, "contract"))
    topics = None if spec.topics is None else str(_below(folder, spec.topics, "topics"))
    return replace(spec, path=str(path), contract=contract, topics=topics)


def _below(folder: Path | None, name: str, what: str) -> Path:
    if folder is None:
        raise ValueError("this server lets no job import or export: start it with --exchange FOLDER")
    try:
        home = folder.resolve(strict=True)
        path = (home / name).resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"'{what}' {name!r} below the server's --exchange folder can't be opened: {error}") from None
    if Path(name).is_absolute() or ".." in Path(name).parts or path == home or not path.is_relative_to(home):
        raise ValueError(f"'{what}' {name!r} must be relative to the server's --exchange folder, and lie below it")
    return path


def _check_links(path: Path) -> None:
    for each in path.rglob("*") if path.is_dir() else ():
        if each.is_symlink() and not each.resolve().is_relative_to(path):
            raise ValueError(f"'{each}' is a link to outside what is imported: copy the files instead of linking them")
