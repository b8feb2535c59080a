"""The sampling mode of robots that request none: as the server was started, or a share of each robot's episodes."""

from __future__ import annotations

import threading
from collections import defaultdict


class Exploration:
    """Any thread; none waits. `default`: whether those robots explore while no share is set."""

    def __init__(self, default: bool) -> None:
        self.default = default
        self._share: float | None = None
        self._lock = threading.Lock()
        self._begun: defaultdict[str, int] = defaultdict(int)

    def set_share(self, share: float | None) -> None:
        """Let so many of each robot's episodes explore from now on, evenly spread; None: as by default."""
        with self._lock:
            if share != self._share:
                self._begun.clear()
            self._share = share

    def begin(self, robot_id: str) -> bool:
        """Whether the episode that this robot begins now explores."""
        with self._lock:
            if self._share is None:
                return self.default
            count = self._begun[robot_id] = self._begun[robot_id] + 1
            return int(count * self._share) > int((count - 1) * self._share)
