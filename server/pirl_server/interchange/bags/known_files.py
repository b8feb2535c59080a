"""Recognises what rosbag2 recorded, by its files' first bytes; loads no library for that."""

from __future__ import annotations

from pathlib import Path

MCAP_MAGIC = b"\x89MCAP0\r\n"
SQLITE_MAGIC = b"SQLite format 3\x00"
METADATA = "metadata.yaml"
SUFFIXES = (".mcap", ".db3")


def recordings(path: Path) -> list[Path]:
    """Return the recordings at a path: itself, or those in it, which are folders; none where it is something else."""
    if _is_recording(path):
        return [path]
    return [each for each in sorted(path.iterdir()) if each.is_dir() and _is_recording(each)] if path.is_dir() else []


def files_of(folder: Path) -> list[Path]:
    """Return the recorded files in a folder, in the order of their names' numbers."""
    found = [file for file in folder.iterdir() if file.is_file() and file.suffix in SUFFIXES]
    return sorted(found, key=lambda file: (len(file.name), file.name))


def head_of(file: Path) -> bytes:
    """Return the first bytes, as many as the longer of both magics has."""
    with file.open("rb") as opened:
        return opened.read(len(SQLITE_MAGIC))


def _is_recording(path: Path) -> bool:
    if path.is_dir():
        return (path / METADATA).is_file() or any(map(_is_recorded_file, files_of(path)))
    return path.is_file() and _is_recorded_file(path)


def _is_recorded_file(file: Path) -> bool:
    head = head_of(file)
    return head.startswith(MCAP_MAGIC) or (head == SQLITE_MAGIC and file.suffix == ".db3")
