"""Signs of life of a running job: that its runner watches it, and that it makes progress.

Progress is an event of its process, or another checkpoint; output is none. What decides whether a job has stalled is
how long the runner has looked at it without a change, so that neither a clock that is set nor a runner that was itself
stopped for a while ends a job.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from pirl_server.jobs.events import NAME as EVENTS
from pirl_server.jobs.verdict import CONTINUED_FROM, checkpoint_mark

BEAT, BEAT_S = ".heartbeat", 5.0
"""file whose time the runner renews, and how often"""
LOOK_S = 1.0
"""most that counts between two looks"""


@dataclass(frozen=True)
class Signs:
    """When they were last seen: UTC in ISO 8601, by the wall clock, for display."""

    heartbeat: str | None
    """its runner looked at its living process; None: not yet, or no runner has it"""
    progress: str | None
    """its process reported something, or made a checkpoint"""


def signs(directory: Path) -> Signs:
    """Return the signs of life of the job in this folder."""
    moved = [found for name in (EVENTS, *CONTINUED_FROM) if (found := _time(directory / name)) is not None]
    return Signs(_iso(_time(directory / BEAT)), _iso(max(moved, default=None)))


class ProgressWatch:
    """How long a job has made no progress. For the thread of its runner; times are monotonic, in seconds."""

    def __init__(self, directory: Path, now_s: float) -> None:
        self._directory, self._looked_s, self._beaten_s = directory, now_s, now_s - BEAT_S
        self._mark, self._idle_s = self._now(), 0.0
        with suppress(OSError):
            (directory / BEAT).unlink(missing_ok=True)  # an earlier attempt's

    def look(self, now_s: float) -> float:
        """Look, and return for how long nothing has changed: in seconds of being looked at."""
        self._idle_s += min(now_s - self._looked_s, LOOK_S)
        self._looked_s = now_s
        if (mark := self._now()) != self._mark:
            self._mark, self._idle_s = mark, 0.0
        if now_s - self._beaten_s >= BEAT_S:
            self._beaten_s = now_s
            with suppress(OSError):  # a full disk: it is only shown
                (self._directory / BEAT).touch()
        return self._idle_s

    def _now(self) -> tuple[int, str]:
        try:
            size = os.stat(self._directory / EVENTS).st_size
        except OSError:
            size = -1
        return size, checkpoint_mark(self._directory)


def _time(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
