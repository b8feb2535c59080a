"""The audit log: who did what, when, with what result. JSON lines, append-only.

One file for the whole server; the registry writes its promotions there, in the same form:
{"time", "event", "actor", "result", ...}.
"""

from __future__ import annotations

from pathlib import Path

from pirl_server.atomic_files import append_line, utc_now


class AuditLog:
    """Appends lines. Threads and processes may share the file: each line is one write to a file opened to append."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, actor: str, result: str = "done", **more: str) -> None:
        """Append what happened; `more` says to what: version, robot, job, episode, reason."""
        append_line(self.path, {"time": utc_now(), "event": event, "actor": actor, "result": result} | more)
