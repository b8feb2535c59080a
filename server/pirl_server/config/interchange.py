"""Episodes in and out: one strict frozen dataclass each, for the command line, REST and the stored record."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.fields import CHECKED, about, flag, text
from pirl_server.config.scheduling import Scheduled

_PAIR = r"^[^=\x00-\x1f\x7f]{1,200}=[^=\x00-\x1f\x7f]{1,200}$"
_LINE = r"^[^\x00-\x1f\x7f]{1,1000}$"
_PATH = r"^[^\x00-\x1f\x7f]{1,1000}$"
ImportFormat = Literal["auto", "lerobot", "robomimic", "maniskill", "rosbag2"]
ExportFormat = Literal["lerobot", "mcap"]
ImagesAs = Literal["png", "video"]
Pairs = tuple[Annotated[str, text("NAME=NAME", _PAIR)], ...]


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class ImportSettings:
    """How recorded episodes of another program become episodes of a store."""

    format: Annotated[ImportFormat, about("what wrote it; auto: recognised by its files")] = "auto"
    contract: Annotated[
        str | None,
        about("the robot as JSON, as `pirl robot check PROFILE --contract FILE` writes it; null: the one in the data",
              "FILE", strict=True, pattern=_PATH),
    ] = None  # fmt: skip
    robot_id: Annotated[
        str | None, text("robot that the episodes are of; null: the one in the data, else 'imported'", NAME_PATTERN)
    ] = None
    driver: Annotated[
        Literal["human", "policy"], about("who drove, where the data does not say; human: the steps are demonstrations")
    ] = "human"
    success: Annotated[
        str,
        text(
            "label: all or none succeeded, unlabelled, the name of a column that is above 0 in a success, or auto:"
            " the data's own where it has one", _LINE,
        ),
    ] = "auto"  # fmt: skip
    instruction: Annotated[str | None, text("what the robot did, where the data does not say", _LINE)] = None
    camera: Annotated[Pairs, about("which images are which camera of the contract; may be repeated", "KEY=CAMERA")] = ()
    rename: Annotated[
        Pairs, about("which state or action entry is which of the contract; may be repeated", "NAME=ENTRY")
    ] = ()
    positional: Annotated[
        bool, flag("the data names no entries: take them in the contract's order. Widths must agree")
    ] = False
    topics: Annotated[
        str | None,
        about("which topics of a recording are what: a robot profile, which is its contract too, or a map of topics",
              "FILE", strict=True, pattern=_PATH),
    ] = None  # fmt: skip
    without_calls: Annotated[
        bool, flag("leave out the policy calls that an export of pirl has: the episodes become demonstrations")
    ] = False


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class ImportEpisodes(Scheduled, ImportSettings):
    """Import recorded episodes into the store. Those that are there already are left as they are."""

    path: Annotated[
        str,
        text(
            "folder or file; in a job below the server's --exchange folder, and so are `contract` and `topics`", _PATH
        ),
    ]
    kind: Literal["import"] = "import"


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class ExportSettings:
    """How episodes of a store are written for other programs."""

    images: Annotated[
        ImagesAs,
        about("png: exactly the pixels that the policy saw; video: smaller, and pixels differ, so that PPO can't learn"
              " from the policy calls again"),
    ] = "png"  # fmt: skip


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class ExportEpisodes(Scheduled, ExportSettings):
    """Export episodes of the store to a new folder, which is there whole or not at all."""

    path: Annotated[str, text("new folder; in a job below the server's --exchange folder", _PATH)]
    format: Annotated[ExportFormat, about("what reads it")] = "lerobot"
    select: Annotated[EpisodeSelection, about("which episodes")] = field(default_factory=EpisodeSelection)
    kind: Literal["export"] = "export"
