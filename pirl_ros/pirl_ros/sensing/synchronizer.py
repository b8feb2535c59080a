"""The newest complete set of streams. A missing or stale stream gives no set and a reason, never zeros."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pirl_ros.profile.sections import Rule

_KEEP = 1024
"""messages kept per stream at most: 0.5 s of joint states at 1 kHz, with room"""


@dataclass(frozen=True)
class Stream:
    """What is asked of one stream."""

    max_age_s: float
    rule: Rule = "sync"


@dataclass(frozen=True)
class Arrival:
    """One message: the stamp its sender gave it, and when it came by the monotonic clock of this host."""

    stamp_ns: int
    received_ns: int
    value: Any


@dataclass(frozen=True)
class Bundle:
    """One message of each stream. Both times are of the streams with rule sync, which are close in stamp."""

    stamp_ns: int
    """the oldest stamp in it"""
    received_ns: int
    """when its first message came; age is measured from here"""
    values: Mapping[str, Any]


class Synchronizer:
    """Collects streams by name, at least one of which has rule sync.

    Stamps are compared with one another only, age is counted on this host's monotonic clock: a clock that is set back
    or runs an hour ahead makes nothing old or young.
    """

    def __init__(self, streams: Mapping[str, Stream], slop_s: float) -> None:
        """Take the streams, and the largest distance of stamps in one set."""
        assert any(stream.rule == "sync" for stream in streams.values()), "no stream has rule sync"
        self._streams = dict(streams)
        self._slop_ns = int(slop_s * 1e9)
        self._arrivals: dict[str, deque[Arrival]] = {name: deque(maxlen=_KEEP) for name in streams}

    def push(self, name: str, stamp_ns: int, value: Any, now_ns: int) -> None:
        """Take one message in. One stamped earlier than the newest of its stream resets the stream."""
        arrivals = self._arrivals[name]
        if arrivals and stamp_ns < arrivals[-1].stamp_ns:
            arrivals.clear()
        arrivals.append(Arrival(stamp_ns, now_ns, value))
        oldest_ns = now_ns - int(self._streams[name].max_age_s * 1e9)
        while arrivals[0].received_ns < oldest_ns:
            arrivals.popleft()

    def clear(self) -> None:
        """Forget all messages."""
        for arrivals in self._arrivals.values():
            arrivals.clear()

    def silent(self) -> list[str]:
        """Return the streams of which nothing has come."""
        return [name for name, arrivals in self._arrivals.items() if not arrivals]

    def newest(self, now_ns: int) -> tuple[Bundle | None, str]:
        """Return the newest complete set and '', or None and why there is none."""
        if silent := self.silent():
            return None, f"nothing received yet: {', '.join(silent)}"
        anchors = [self._arrivals[name][-1] for name, stream in self._streams.items() if stream.rule == "sync"]
        anchor_ns = min(arrival.stamp_ns for arrival in anchors)
        chosen: dict[str, Arrival] = {}
        for name in self._streams:
            arrival, reason = self._choose(name, anchor_ns, now_ns)
            if arrival is None:
                return None, reason
            chosen[name] = arrival
        together = [chosen[name] for name, stream in self._streams.items() if stream.rule == "sync"]
        bundle = Bundle(
            stamp_ns=min(arrival.stamp_ns for arrival in together),
            received_ns=min(arrival.received_ns for arrival in together),
            values={name: arrival.value for name, arrival in chosen.items()},
        )
        return bundle, ""

    def _choose(self, name: str, anchor_ns: int, now_ns: int) -> tuple[Arrival | None, str]:
        stream, arrivals = self._streams[name], self._arrivals[name]
        arrival: Arrival | None = arrivals[-1]
        if stream.rule == "sync":
            arrival = _nearest(arrivals, anchor_ns)
        elif stream.rule == "asof":
            arrival = next((earlier for earlier in reversed(arrivals) if earlier.stamp_ns <= anchor_ns), None)
        if arrival is None:
            return None, f"{name} has no message stamped before the others"
        age_s = (now_ns - arrival.received_ns) / 1e9
        if age_s > stream.max_age_s:
            return None, f"{name} is stale: {age_s:.1f} s old, limit {stream.max_age_s:g} s"
        apart_ns = abs(arrival.stamp_ns - anchor_ns)
        if stream.rule == "sync" and apart_ns > self._slop_ns:
            limit_ms = self._slop_ns / 1e6
            return None, f"{name} is {apart_ns / 1e6:.0f} ms apart from the others, limit {limit_ms:.0f} ms"
        return arrival, ""


def _nearest(arrivals: deque[Arrival], stamp_ns: int) -> Arrival:
    """Stamps rise, and the one wanted is near the end: searched from there."""
    nearest = arrivals[-1]
    for arrival in reversed(arrivals):
        if abs(arrival.stamp_ns - stamp_ns) > abs(nearest.stamp_ns - stamp_ns):
            break
        nearest = arrival
    return nearest
