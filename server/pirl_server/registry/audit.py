"""The audit log: who did what, when, with what result. JSON lines, append-only.

One file for the whole server; the registry writes its promotions there, in the same form:
{"time", "event", "actor", "result", ...}.

A full file becomes audit.1.jsonl, that one audit.2.jsonl, and so on; the oldest goes. The new file begins with all
lines that move an alias, so that it alone defines the aliases (see aliases.py).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection
from pathlib import Path

from pirl_server.atomic_files import append_line, locked, sync, utc_now

NAME = "audit.jsonl"
MAX_BYTES, KEPT = 32 * 2**20, 4
"""of one file, and how many full ones are kept"""
READ_BYTES = 4 * 2**20
"""at the end of the file, where `newest` looks"""
_LOG = logging.getLogger(__name__)


class AuditLog:
    """Appends lines. Threads and processes may share the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures = 0
        """lines that the disk rejected since the start, of what was done nevertheless"""

    def write(self, event: str, actor: str, result: str = "done", **more: str) -> None:
        """Append what is about to be done; `more` says to what: version, robot, job, episode, reason.

        Raises OSError: then it must not be done.
        """
        line = {"time": utc_now(), "event": event, "actor": actor, "result": result} | more
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            append_line(self.path, line)
            try:
                if self.path.stat().st_size > MAX_BYTES:
                    self._rotate()
            except OSError as error:  # the line is written; the next one tries again
                _LOG.error("'%s' can't be rotated: %s", self.path, error)

    def note(self, event: str, actor: str, result: str = "done", **more: str) -> None:
        """Append what is done already, or was rejected. A disk that rejects the line must not change the answer."""
        try:
            self.write(event, actor, result, **more)
        except OSError as error:
            self.failures += 1
            _LOG.error("not in the audit log, %s: %s by %s, %s %s", error.strerror, event, actor, result, more)

    def newest(self, limit: int, events: Collection[str] = ()) -> list[dict[str, str]]:
        """Return lines of these events, none: of all, newest first; of the newest `READ_BYTES`. Raises OSError."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - READ_BYTES))
            lines = file.read().splitlines()
        found = list[dict[str, str]]()
        for text in reversed(lines):
            line = _parsed(text)
            if line and (not events or line["event"] in events):
                found.append(line)
            if len(found) >= limit:
                break
        return found

    def _rotate(self) -> None:
        kept = [self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}") for number in range(1, KEPT + 1)]
        staged = self.path.with_name(f".{self.path.name}.new")
        with self.path.open("rb") as full, staged.open("wb") as new:
            new.writelines(line for line in full if b'"alias": ' in line)
        if staged.stat().st_size > MAX_BYTES // 2:  # else each line would rotate
            _LOG.warning("'%s' is not rotated: more than half of it defines aliases", self.path)
            return
        sync(staged)
        for older, newer in reversed(list(zip(kept[1:], kept))):
            if newer.exists():
                os.replace(newer, older)
        os.replace(self.path, kept[0])
        os.replace(staged, self.path)
        sync(self.path.parent)


def _parsed(text: bytes) -> dict[str, str] | None:
    """A line, or None for one that was cut or damaged."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(line, dict) and {"time", "event", "actor", "result"} <= line.keys()
    return {str(name): str(value) for name, value in line.items()} if whole else None
