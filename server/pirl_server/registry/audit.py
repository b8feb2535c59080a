"""The audit log: who did what, when, with what result. JSON lines, append-only.

One file for the whole server; the registry writes its promotions there, in the same form:
{"time", "event", "actor", "result", ...}.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pirl_server.atomic_files import append_line, utc_now

NAME = "audit.jsonl"
_LOG = logging.getLogger(__name__)


class AuditLog:
    """Appends lines. Threads and processes may share the file: each line is one write to a file opened to append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures = 0
        """lines that the disk rejected since the start, of what was done nevertheless"""

    def write(self, event: str, actor: str, result: str = "done", **more: str) -> None:
        """Append what is about to be done; `more` says to what: version, robot, job, episode, reason.

        Raises OSError: then it must not be done.
        """
        append_line(self.path, {"time": utc_now(), "event": event, "actor": actor, "result": result} | more)

    def note(self, event: str, actor: str, result: str = "done", **more: str) -> None:
        """Append what is done already, or was rejected. A disk that rejects the line must not change the answer."""
        try:
            self.write(event, actor, result, **more)
        except OSError as error:
            self.failures += 1
            _LOG.error("not in the audit log, %s: %s by %s, %s %s", error.strerror, event, actor, result, more)
