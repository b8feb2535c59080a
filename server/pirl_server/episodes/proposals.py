"""Proposed labels: what a success model thinks of an episode, kept apart from its labels until a person accepts it.

One JSON line each in a log of their own, the newest of an episode counts. Nothing that selects by label or counts
successes reads it, and of what trains only a job whose config names the model (`model_outcomes`). A line that can't
be read, cut off by a crash or changed, counts for nothing, and is named.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import append_line, locked, sync
from pirl_server.config.episodes import ProposalFilter

NAME = "proposals.jsonl"
State = Literal["open", "accepted", "rejected"]


@dataclass(frozen=True)
class Proposal:
    """What is proposed for one episode, and what became a label of it."""

    success: bool
    probability: float
    """of success, 0 to 1"""
    model: str
    """version of the success model"""
    at: str
    """ISO 8601, UTC: when it was proposed, or decided"""
    state: State = "open"
    job: str = ""
    """that proposed it; empty: a command"""
    author: str = ""
    """who decided"""

    @property
    def confidence(self) -> float:
        """In the outcome that is proposed."""
        return max(self.probability, 1.0 - self.probability)

    def shows(self, wanted: ProposalFilter) -> bool:
        """Whether a list of such proposals has it."""
        if wanted in ("success", "failure"):
            return self.state == "open" and self.success is (wanted == "success")
        return wanted == "any" or self.state == wanted


_PROPOSAL = TypeAdapter(Proposal)


class ProposalLog:
    """The file of one store. Any number of threads and processes may read and write."""

    def __init__(self, root: Path) -> None:
        self.path = root / NAME
        self._lock = threading.Lock()
        self._stamp, self._offset, self._lines = (0, 0), 0, 0
        self._newest: dict[str, Proposal] = {}
        self.damaged: list[str] = []
        """lines that could not be read, each with the reason"""

    def append(self, make: Callable[[], Mapping[str, Proposal]]) -> Mapping[str, Proposal]:
        """Add what `make` returns, by episode: on the disk when this returns.

        No other line comes between what `make` reads and its own. Raises OSError, and what `make` raises.
        """
        with locked(self.path.with_suffix(".lock")):
            made = make()
            for episode_id, proposal in made.items():
                line = {"episode": episode_id, **asdict(proposal)}
                append_line(self.path, line | {"check": _check(line)})
            if made:
                sync(self.path)
                sync(self.path.parent)
        return made

    def get(self, episode_id: str) -> Proposal | None:
        """Return the newest proposal of an episode; None: there is none."""
        return self._read().get(episode_id)

    def ids(self, wanted: ProposalFilter) -> list[str]:
        """Return the ids of the episodes whose newest proposal is such a one."""
        return [episode_id for episode_id, each in self._read().items() if each.shows(wanted)]

    def counts(self) -> dict[str, Counter[State]]:
        """Count the newest proposals of all episodes, by model and state."""
        found: dict[str, Counter[State]] = {}
        for each in self._read().values():
            found.setdefault(each.model, Counter())[each.state] += 1
        return found

    def _read(self) -> dict[str, Proposal]:
        """Take in the whole lines that were added since; all of them when the file was replaced, or is shorter."""
        with self._lock:
            try:
                stat = self.path.stat()
            except FileNotFoundError:
                self._begin_again((0, 0))
                return self._newest
            if (stat.st_ino, stat.st_size) != self._stamp:
                if stat.st_ino != self._stamp[0] or stat.st_size < self._offset:
                    self._begin_again((stat.st_ino, 0))
                self._read_on(stat.st_ino)
            return self._newest

    def _begin_again(self, stamp: tuple[int, int]) -> None:
        self._stamp, self._offset, self._lines = stamp, 0, 0
        self._newest, self.damaged = {}, []

    def _read_on(self, inode: int) -> None:
        with self.path.open("rb") as file:
            file.seek(self._offset)
            raw = file.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        newest = dict(self._newest)  # readers may still hold the one before
        for number, line in enumerate(whole.split(b"\n")[:-1], self._lines + 1):
            try:
                if line:
                    episode_id, proposal = _parsed(line)
                    newest[episode_id] = proposal
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                self.damaged.append(f"'{self.path}', line {number} can't be read and counts for nothing: {error}")
        self._newest, self._lines = newest, self._lines + whole.count(b"\n")
        self._offset, self._stamp = self._offset + len(whole), (inode, self._offset + len(raw))


def _parsed(line: bytes) -> tuple[str, Proposal]:
    raw: dict[str, Any] = json.loads(line)
    if raw.pop("check") != _check(raw):
        raise ValueError("it was changed after it was written")
    try:
        return str(raw.pop("episode")), _PROPOSAL.validate_python(raw)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None


def _check(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()[:16]
