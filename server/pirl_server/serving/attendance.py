"""Which robots are there, by which way they ask, and a way to speak to them unasked.

A robot on a session can be spoken to; one that makes unary calls is only seen. Times are seconds of the Unix clock, for
people to read: nothing is decided by them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pirl_contract.v1 import policy_pb2 as pb

MAX_ROBOTS = 1024
"""more are not remembered: the one that was silent for longest is forgotten first"""


@dataclass(frozen=True)
class Presence:
    """One robot as the server knows it."""

    robot_id: str
    address: str
    """of its last request, in gRPC's words: ipv4:10.0.0.7:51324"""
    since: float
    """when it came, Unix seconds; of its session where it has one"""
    last_seen: float
    """when it last asked anything, Unix seconds"""
    policy_version: str = ""
    """that last answered it; empty before the first chunk"""
    sessions: int = 0
    """open ones: 0 means that it cannot be spoken to"""


class Attendance:
    """Who is connected. Every method may be called from any thread and none waits for a robot."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now, self._lock = now, threading.Lock()
        self._present: dict[str, Presence] = {}
        self._listeners: dict[str, list[Callable[[Any], None]]] = {}
        self._announced: Any = None

    def list(self) -> list[Presence]:
        """Return the robots seen since the server started, by id; a `sessions` of 0 may be gone for good."""
        with self._lock:
            return sorted(self._present.values(), key=lambda presence: presence.robot_id)

    def push(self, robot_id: str | None, event: Any) -> int:
        """Send a `pb.ServerEvent` to one robot, None for all; return how many sessions it was handed to.

        0 means that nobody hears: an unknown robot, or one without a session. It never says that a robot has obeyed.
        """
        with self._lock:
            robots = list(self._listeners) if robot_id is None else [robot_id]
            hearing = [hear for robot in robots for hear in self._listeners.get(robot, [])]
        for hear in hearing:
            hear(event)
        return len(hearing)

    def announce(self, event: Any) -> None:
        """Send a `pb.ServerEvent` to all robots, and to each that joins from now on."""
        with self._lock:
            self._announced = event
        self.push(None, event)

    def emergency_stop(self, robot_id: str | None, reason: str, by: str) -> int:
        """Tell one robot, None for all, to latch its software stop; return how many sessions were told."""
        stop = pb.EmergencyStopEvent(reason=reason, by=by)
        return self.push(robot_id, pb.ServerEvent(emergency_stop=stop))

    def seen(self, robot_id: str, address: str, policy_version: str = "") -> None:
        """Note that a robot asked; `policy_version` where it was answered by one."""
        with self._lock:
            self._note(robot_id, address, policy_version)

    def join(self, robot_id: str, address: str, hear: Callable[[Any], None]) -> None:
        """Note a session; `hear(event)` is called for each event, from any thread, and must not wait."""
        with self._lock:
            self._note(robot_id, address, "")
            heard = self._listeners.setdefault(robot_id, [])
            heard.append(hear)
            known = self._present[robot_id]
            since = self._now() if len(heard) == 1 else known.since
            self._present[robot_id] = replace(known, sessions=len(heard), since=since)
            announced = self._announced
        if announced is not None:
            hear(announced)

    def leave(self, robot_id: str, hear: Callable[[Any], None]) -> None:
        """Note that a session has ended."""
        with self._lock:
            heard = self._listeners[robot_id]
            heard.remove(hear)
            if not heard:
                del self._listeners[robot_id]
            if robot_id in self._present:
                self._present[robot_id] = replace(self._present[robot_id], sessions=len(heard))

    def _note(self, robot_id: str, address: str, policy_version: str) -> None:
        now = self._now()
        known = self._present.get(robot_id) or self._welcome(robot_id, address, now)
        version = policy_version or known.policy_version
        # not `replace`: this is done for each request
        self._present[robot_id] = Presence(robot_id, address, known.since, now, version, known.sessions)

    def _welcome(self, robot_id: str, address: str, now: float) -> Presence:
        gone = [presence for presence in self._present.values() if not presence.sessions]
        if len(self._present) >= MAX_ROBOTS and gone:
            del self._present[min(gone, key=lambda presence: presence.last_seen).robot_id]
        return Presence(robot_id, address, since=now, last_seen=now)
