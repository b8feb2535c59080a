"""Where the watch after the last promotion stands: kept across restarts in `watch.json` beside the aliases."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import read_json, utc_now, write_json

_LOG = logging.getLogger(__name__)
FILE = "watch.json"
Phase = Literal["idle", "watching", "kept", "rolled back", "ended"]


@dataclass(frozen=True)
class WatchState:
    """Of the version that was promoted last; times are UTC in ISO 8601."""

    phase: Phase = "idle"
    """kept: nothing spoke against it; ended: production was changed by another caller, or it is not to be watched"""
    version: str = ""
    previous: str = ""
    """what it replaced, and what it is compared with"""
    since: str = ""
    """of the promotion"""
    known_successes: int = 0
    """of the newest labelled episodes of the version before, at the promotion"""
    known: int = 0
    """labelled episodes of the version before, at the promotion"""
    reason: str = ""
    """why the watch is over"""
    ended: str = ""


_STATE = TypeAdapter(WatchState)


def read_state(folder: Path) -> WatchState:
    """Return where the watch stood. A damaged file is logged: nothing is watched then."""
    path = folder / FILE
    if not path.exists():
        return WatchState()
    try:
        return _STATE.validate_python(read_json(path))
    except (OSError, ValueError, ValidationError) as error:
        _LOG.error("'%s' can't be read, the version in production is not watched: %s", path, error)
        return WatchState()


def write_unwatched(folder: Path, previous: str | None, version: str) -> None:
    """Write down that a promotion is not to be watched, by a later server neither. Never raises."""
    reason = "it was promoted with --auto-rollback off"
    try:
        write_state(folder, WatchState("ended", version, previous or "", utc_now(), reason=reason, ended=utc_now()))
    except OSError as error:
        _LOG.error("that %s is not to be watched can't be stored: %s", version, error)


def write_state(folder: Path, state: WatchState) -> None:
    """Replace the file in one step. Raises OSError."""
    write_json(folder / FILE, asdict(state))
