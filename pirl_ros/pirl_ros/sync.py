"""The newest complete set of streams. A missing or stale stream means no set and the reason in words, never zeros."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KEEP = 16
"""messages kept per stream: 0.8 s at 20 Hz, more than one inference of a fast server"""


@dataclass(frozen=True)
class Arrival:
    """One message: the stamp its sender gave it, and when it came by the monotonic clock of this host."""

    stamp_ns: int
    received_ns: int
    value: Any


@dataclass(frozen=True)
class Bundle:
    """One message of each stream, close in stamp."""

    stamp_ns: int
    """the oldest stamp in it"""
    received_ns: int
    """when its first message came; age is measured from here"""
    values: Mapping[str, Any]


class Synchronizer:
    """Collects streams by name.

    Stamps are compared with one another only, age is counted on this host's monotonic clock: a clock that is set back
    or runs an hour ahead makes nothing old or young.
    """

    def __init__(self, streams: Mapping[str, float], slop_s: float) -> None:
        """Take the streams with the age limit of each in seconds, and the largest distance of stamps in one set."""
        self._max_age_s = dict(streams)
        self._slop_ns = int(slop_s * 1e9)
        self._arrivals: dict[str, deque[Arrival]] = {name: deque(maxlen=_KEEP) for name in streams}

    def push(self, name: str, stamp_ns: int, value: Any, now_ns: int) -> None:
        """Take one message in. One stamped earlier than the newest of its stream starts the stream anew."""
        arrivals = self._arrivals[name]
        if arrivals and stamp_ns < arrivals[-1].stamp_ns:
            arrivals.clear()
        arrivals.append(Arrival(stamp_ns, now_ns, value))

    def clear(self) -> None:
        """Forget all messages."""
        for arrivals in self._arrivals.values():
            arrivals.clear()

    def newest(self, now_ns: int) -> tuple[Bundle | None, str]:
        """Return the newest complete set and '', or None and why there is none."""
        if silent := [name for name, arrivals in self._arrivals.items() if not arrivals]:
            return None, f"nothing received yet: {', '.join(silent)}"
        anchor = min(arrivals[-1].stamp_ns for arrivals in self._arrivals.values())
        chosen: dict[str, Arrival] = {}
        for name, arrivals in self._arrivals.items():
            arrival = min(arrivals, key=lambda candidate: abs(candidate.stamp_ns - anchor))
            age_s = (now_ns - arrival.received_ns) / 1e9
            if age_s > self._max_age_s[name]:
                return None, f"{name} is stale: {age_s:.1f} s old, limit {self._max_age_s[name]:g} s"
            if abs(arrival.stamp_ns - anchor) > self._slop_ns:
                apart_ms = abs(arrival.stamp_ns - anchor) / 1e6
                return None, f"{name} is {apart_ms:.0f} ms apart from the others, limit {self._slop_ns / 1e6:.0f} ms"
            chosen[name] = arrival
        return _bundle(chosen), ""


def _bundle(chosen: Mapping[str, Arrival]) -> Bundle:
    return Bundle(
        stamp_ns=min(arrival.stamp_ns for arrival in chosen.values()),
        received_ns=min(arrival.received_ns for arrival in chosen.values()),
        values={name: arrival.value for name, arrival in chosen.items()},
    )
