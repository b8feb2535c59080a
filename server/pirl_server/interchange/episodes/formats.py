"""The formats of recorded episodes, by name: how each is recognised, and what reads and writes it, loaded when used.

A reader is `open_source(path, settings, contract) -> Source`; it checks all that can be checked before the first
episode is read. A writer is `write(episodes, out, settings, progress) -> lines`; it writes to a new folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from pirl_contract import Contract
from pirl_server.config.interchange import ExportSettings, ImportSettings
from pirl_server.episodes.schema import Episode
from pirl_server.interchange.bags.known_files import recordings

HDF5_HEAD = b"\x89HDF\r\n\x1a\n"


class CancelledError(ValueError):
    """A user asked to stop before there was anything to keep."""


class Progress(Protocol):
    """Called between two episodes."""

    @property
    def cancelled(self) -> bool:
        """True once a user asked to stop: the episodes so far are kept."""

    def progress(self, done: int, total: int, message: str) -> None:
        """`done` of `total` episodes."""


@dataclass(frozen=True)
class Candidate:
    """One episode of a source, not read yet."""

    name: str
    """for messages: where in the source it is"""
    id: str
    """32 hexadecimal digits from its content: the same episode has the same id whenever it is imported"""
    read: Callable[[], Episode]
    """Raises ValueError that names the file at fault."""
    same_as: str = ""
    """id under which a store may have it in another form"""


class Source(Protocol):
    """What an importer has opened and checked."""

    @property
    def lines(self) -> Sequence[str]:
        """What a person should compare with what they know of the data."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Candidate]: ...


Importer = Callable[[Path, ImportSettings, "Contract | None"], Source]
Exporter = Callable[[Sequence[Callable[[], Episode]], Path, ExportSettings, Progress], Sequence[str]]


@dataclass(frozen=True)
class Format:
    """One format. `importer` and `exporter` are "module:function", empty where there is none."""

    name: str
    what: str
    recognises: Callable[[Path], bool]
    importer: str
    exporter: str = ""


def _has_info(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()


def _is_hdf5(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HDF5_HEAD)) == HDF5_HEAD


def _is_maniskill(path: Path) -> bool:
    return _is_hdf5(path) and path.with_suffix(".json").is_file()


def _is_recording(path: Path) -> bool:
    return bool(recordings(path))


_HERE = "pirl_server.interchange.episodes"
_BAGS = "pirl_server.interchange.bags"
FORMATS = (
    Format(
        "lerobot",
        "LeRobotDataset v3.0, and v2.1 to import: a folder with meta/info.json",
        _has_info,
        f"{_HERE}.lerobot_importer:open_source",
        f"{_HERE}.lerobot_exporter:write",
    ),
    Format(
        "maniskill",
        "trajectories of ManiSkill: an HDF5 file with a JSON file of the same name",
        _is_maniskill,
        f"{_HERE}.hdf5_maniskill:open_source",
    ),
    Format(
        "robomimic",
        "demonstrations of robomimic: an HDF5 file",
        _is_hdf5,
        f"{_HERE}.hdf5_robomimic:open_source",
    ),
    Format(
        "rosbag2",
        "recordings of rosbag2: a folder, or an MCAP or SQLite file",
        _is_recording,
        f"{_BAGS}.recording_importer:open_source",
    ),
    Format(
        "mcap",
        "an MCAP recording per episode, for ros2 bag, Foxglove and readers of MCAP",
        lambda path: False,
        "",
        f"{_BAGS}.mcap_exporter:write",
    ),
)
"""recognised in this order"""


def recognise(path: Path, name: str) -> Format:
    """The format of this name, or with `auto` the one that recognises the path. Raises ValueError when none does."""
    if not path.exists():
        raise ValueError(f"'{path}' is not there: give the folder or file of the recording")
    for each in FORMATS:
        if name == each.name or (name == "auto" and each.recognises(path)):
            return each
    known = "; ".join(f"{each.name}: {each.what}" for each in FORMATS if each.importer)
    raise ValueError(f"'{path}' is none of the formats that can be imported ({known}): choose one with --format")


def importer(chosen: Format) -> Importer:
    """Load the reader. Raises ValueError where the extra `data` is not installed."""
    return _load(chosen.importer)  # type: ignore[no-any-return]


def exporter(name: str) -> Exporter:
    """Load the writer of a format. Raises ValueError for one that has none."""
    found = next((each for each in FORMATS if each.name == name and each.exporter), None)
    if found is None:
        raise ValueError(f"'{name}' can't be written; there are: {', '.join(e.name for e in FORMATS if e.exporter)}")
    return _load(found.exporter)  # type: ignore[no-any-return]


def _load(where: str):  # type: ignore[no-untyped-def]
    module, _, function = where.partition(":")
    try:
        return getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise ValueError(f"this format needs '{error.name}': pip install 'pirl[server,data]'") from None
