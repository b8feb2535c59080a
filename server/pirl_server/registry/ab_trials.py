"""Blinded comparisons of two versions on robots: who gets which version when, and what it came to.

root/ab_trials/ID.json, one per trial, replaced whole. At most one runs at a time.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import check_name, read_json, write_json
from pirl_server.registry.ab_test import AbResult

Status = Literal["running", "decided", "undecided", "stopped"]


@dataclass(frozen=True)
class AbEpisode:
    """One episode that counted."""

    id: str
    robot_id: str
    version: str
    success: bool


@dataclass(frozen=True)
class AbTrial:
    """All of it; times are UTC in ISO 8601."""

    id: str
    first: str
    """version"""
    second: str
    """version"""
    robots: tuple[str, ...]
    seed: str
    """decides the order; not shown while it runs"""
    max_pairs: int
    margin: float
    """difference of success rates within which they count as equal"""
    alpha: float
    created: str
    actor: str
    reason: str
    production: str
    """when it began: the trial ends when that changes"""
    status: Status = "running"
    ended: str = ""
    note: str = ""
    """why it has ended"""
    result: AbResult | None = None
    episodes: tuple[AbEpisode, ...] = ()
    """that counted, by time; none while it runs"""

    def version_of(self, robot_id: str, number: int) -> str:
        """The version of a robot's episode with this number: each two episodes have both, in random order."""
        digest = hashlib.sha256(f"{self.seed} {robot_id} {number // 2}".encode()).digest()
        return (self.first, self.second)[(number + digest[0]) % 2]

    @property
    def running(self) -> bool:
        """Whether robots get its versions now."""
        return self.status == "running"


def new_id() -> str:
    """Return the id of a new trial."""
    return f"ab_{secrets.token_hex(8)}"


_TRIAL = TypeAdapter(AbTrial)


class AbTrials:
    """Those below `root/ab_trials`."""

    def __init__(self, root: Path) -> None:
        self._root = root / "ab_trials"
        self._root.mkdir(parents=True, exist_ok=True)

    def put(self, trial: AbTrial) -> None:
        """Store a trial. Raises OSError."""
        write_json(self._root / f"{check_name('trial', trial.id)}.json", asdict(trial))

    def get(self, id_: str) -> AbTrial:
        """Return a trial. Raises KeyError when there is none, ValueError that names a file it can't read."""
        path = self._root / f"{check_name('trial', id_)}.json"
        if not path.is_file():
            raise KeyError(id_)
        raw = read_json(path)
        try:
            return _TRIAL.validate_python(raw)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "it"
            raise ValueError(f"'{path}' can't be read: {where}: {fault['msg']}") from None

    def list(self) -> tuple[list[AbTrial], dict[str, str]]:
        """Return all, newest first, and of those that can't be read the reason."""
        found, damaged = list[AbTrial](), dict[str, str]()
        for path in self._root.glob("ab_*.json"):
            try:
                found.append(self.get(path.stem))
            except ValueError as error:
                damaged[path.stem] = str(error)
        return sorted(found, key=lambda trial: (trial.created, trial.id), reverse=True), damaged
