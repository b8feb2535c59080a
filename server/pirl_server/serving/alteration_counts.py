"""Live counts of executed steps by policy version: how many there were, and how many a limit of the robot altered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from pirl_contract import ControlSource, StepOutcome
from pirl_server.episodes.step_counts import LIMITS

MAX_CHUNKS = 4096
"""whose version is remembered: the steps of an older one are not counted"""
MAX_VERSIONS = 64


@dataclass(frozen=True)
class Altered:
    """Of one version since the server started."""

    steps: int = 0
    """that it drove, or that were to be its own when a limit stopped it"""
    altered: int = 0


class AlterationCounts:
    """Any thread, and none waits. Steps that are reported twice count twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version_of: OrderedDict[str, str] = OrderedDict()
        self._counts: OrderedDict[str, Altered] = OrderedDict()

    def drew(self, chunk_id: str, version: str) -> None:
        """Remember whose chunk this is."""
        with self._lock:
            self._version_of[chunk_id] = version
            if len(self._version_of) > MAX_CHUNKS:
                self._version_of.popitem(last=False)

    def executed(self, outcomes: Sequence[StepOutcome]) -> None:
        """Count steps that the policy drove."""
        with self._lock:
            for outcome in outcomes:
                version = self._version_of.get(outcome.chunk_id)
                if version is None or outcome.source == ControlSource.HUMAN:
                    continue
                before = self._counts.pop(version, Altered())
                limited = bool(int(outcome.alterations) & int(LIMITS))
                self._counts[version] = Altered(before.steps + 1, before.altered + limited)
            while len(self._counts) > MAX_VERSIONS:
                self._counts.popitem(last=False)

    def of(self, version: str) -> Altered:
        """Return the counts of a version."""
        with self._lock:
            return self._counts.get(version, Altered())
