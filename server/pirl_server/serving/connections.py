"""Connected robots, and pushing events to them.

A robot on a session is sent events. One that makes unary calls can't be: its stop is kept here, and it gets no chunk
until its program restarts, with a GetInfo from the host that it was stopped on. Times are seconds of the Unix clock,
for people to read: nothing is decided by them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from pirl_contract import Observation
from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.serving.errors import BusyError, StoppedError

MAX_ROBOTS = 1024
"""more are not remembered: the one that was silent for longest is forgotten first"""
MAX_SESSIONS = 8
"""of one robot, those included whose connection broke and is not missed yet"""
SILENT_S = 60.0
"""a robot that asked within this time is not forgotten: a stop must find it"""
STOPPED_S = 3600.0
"""nor is one that was stopped and has asked within this time"""
MAX_SHOWN = 64
"""robots whose newest observation is kept to be looked at"""
MAX_SHOWN_BYTES = 256 * 2**20
"""of images of all these together"""


@dataclass(frozen=True)
class RobotConnection:
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
    """open ones: 0 means that it cannot be sent events"""
    polling: bool = False
    """it has asked for chunks without a session: a stop withholds them"""

    @property
    def reachable(self) -> bool:
        """Whether a stop from here has an effect."""
        return self.sessions > 0 or self.polling


@dataclass(frozen=True)
class Shown:
    """The newest observation of one robot."""

    observation: Observation
    """as the policy sees it; its arrays are read only"""
    number: int
    """of the observation, counted over all robots: another one has another number"""
    at: float
    """when it was queued, Unix seconds"""


class NewestObservations:
    """The newest observation of each robot, as it arrived: nothing is copied or encoded. Any thread.

    Of more than `MAX_SHOWN` robots, or `MAX_SHOWN_BYTES`, those that were silent for longest have none.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now, self._lock, self._number, self._bytes = now, threading.Lock(), 0, 0
        self._shown: OrderedDict[str, tuple[Shown, int]] = OrderedDict()

    def keep(self, observation: Observation) -> None:
        """Remember this one in place of the one before it."""
        size = sum(image.nbytes for image in observation.images.values())
        with self._lock:
            self._number += 1
            _, before = self._shown.pop(observation.robot_id, (None, 0))
            self._shown[observation.robot_id] = Shown(observation, self._number, self._now()), size
            self._bytes += size - before
            while len(self._shown) > MAX_SHOWN or (self._bytes > MAX_SHOWN_BYTES and len(self._shown) > 1):
                _, (_, dropped) = self._shown.popitem(last=False)
                self._bytes -= dropped

    def of(self, robot_id: str) -> Shown | None:
        """Return the newest one; None when there is none."""
        with self._lock:
            shown, _ = self._shown.get(robot_id, (None, 0))
            return shown


class RobotConnections:
    """Who is connected. Every method may be called from any thread and none waits for a robot."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now, self._lock = now, threading.Lock()
        self.newest = NewestObservations(now)
        self._present: dict[str, RobotConnection] = {}
        self._asked: OrderedDict[str, float] = OrderedDict()  # monotonic seconds, the longest silent first
        self._listeners: dict[str, list[Callable[[pb.ServerEvent], None]]] = {}
        self._stops: dict[str, pb.EmergencyStopEvent] = {}
        self._announced: pb.ServerEvent | None = None
        self._unheard: set[str] = set()  # robots whose stop no session was notified of

    def list(self) -> list[RobotConnection]:
        """Return the robots seen since the server started, by id; one that is not `reachable` may be gone for good."""
        with self._lock:
            return sorted(self._present.values(), key=lambda presence: presence.robot_id)

    def push(self, robot_id: str | None, event: pb.ServerEvent) -> int:
        """Send a `pb.ServerEvent` to one robot, None for all; return how many sessions it was handed to.

        0 means no receiver: an unknown robot, or one without a session. It never says that a robot has obeyed.
        """
        with self._lock:
            robots = list(self._listeners) if robot_id is None else [robot_id]
            hearing = [hear for robot in robots for hear in self._listeners.get(robot, [])]
        for hear in hearing:
            hear(event)
        return len(hearing)

    def announce(self, event: pb.ServerEvent) -> None:
        """Send a `pb.ServerEvent` to all robots, and to each that joins from now on."""
        with self._lock:
            self._announced = event
        self.push(None, event)

    def emergency_stop(self, robot_id: str | None, reason: str, by: str) -> int:
        """Notify the sessions of one robot, None for all, and withhold chunks from it where it has asked without one.

        Return how many ways it reached: 0 means that no such robot is served.
        """
        stop = pb.EmergencyStopEvent(reason=reason, by=by)
        with self._lock:
            robots = list(self._present) if robot_id is None else [robot_id]
            polling = [robot for robot in robots if robot in self._present and self._present[robot].polling]
            self._stops.update(dict.fromkeys(polling, stop))
            self._unheard.update(robot for robot in polling if robot not in self._listeners)
        return len(polling) + self.push(robot_id, pb.ServerEvent(emergency_stop=stop))

    def check_stop(self, robot_id: str) -> None:
        """Raise StoppedError when a robot that asks without a session was stopped."""
        with self._lock:
            stop = self._stops.get(robot_id)
            if stop is not None:
                host = _host(self._present[robot_id].address)
                raise StoppedError(
                    f"emergency stop by {stop.by or 'unknown user'} on the policy server: {stop.reason};"
                    f" when the arm may move again, call GetInfo as '{robot_id}' from {host}"
                )

    def lift_stop(self, robot_id: str, address: str) -> None:
        """Let a robot restart; only from the host that it was stopped on: others can't see the arm."""
        with self._lock:
            if robot_id in self._stops and _host(self._present[robot_id].address) == _host(address):
                del self._stops[robot_id]
                self._unheard.discard(robot_id)

    def seen(self, robot_id: str, address: str, policy_version: str = "", *, polling: bool = False) -> None:
        """Note that a robot asked, `polling` without a session; `policy_version` where it was answered by one.

        Raises BusyError when it is a new one and there are too many.
        """
        with self._lock:
            self._note(robot_id, address, policy_version, polling)

    def join(self, robot_id: str, address: str, hear: Callable[[pb.ServerEvent], None]) -> None:
        """Note a session; `hear(event)` is called for each event, from any thread, and must not wait.

        A robot that was stopped before it had a session is notified now. Raises BusyError as `seen` does, and for a
        robot with too many sessions.
        """
        with self._lock:
            if len(self._listeners.get(robot_id, ())) >= MAX_SESSIONS:
                raise BusyError(f"robot '{robot_id}' has {MAX_SESSIONS} sessions open already: close one of them")
            self._note(robot_id, address)
            heard = self._listeners.setdefault(robot_id, [])
            heard.append(hear)
            known, stop = self._present[robot_id], None
            if robot_id in self._unheard:
                self._unheard.remove(robot_id)
                stop = self._stops[robot_id]
            since = self._now() if len(heard) == 1 else known.since
            self._present[robot_id] = replace(known, sessions=len(heard), since=since)
            announced = self._announced
        if stop is not None:
            hear(pb.ServerEvent(emergency_stop=stop))
        if announced is not None:
            hear(announced)

    def leave(self, robot_id: str, hear: Callable[[pb.ServerEvent], None]) -> None:
        """Note that a session has ended."""
        with self._lock:
            heard = self._listeners[robot_id]
            heard.remove(hear)
            if not heard:
                del self._listeners[robot_id]
            self._present[robot_id] = replace(self._present[robot_id], sessions=len(heard))

    def _note(self, robot_id: str, address: str, policy_version: str = "", polling: bool = False) -> None:
        now, known = self._now(), self._present.get(robot_id)
        if known is None:
            self._make_room()
            known = RobotConnection(robot_id, address, since=now, last_seen=now)
        if robot_id in self._stops:
            address = known.address  # of where it was stopped
        version = policy_version or known.policy_version
        # not `replace`: this is done for each request
        self._present[robot_id] = RobotConnection(
            robot_id, address, known.since, now, version, known.sessions, polling or known.polling
        )
        self._asked[robot_id] = time.monotonic()
        self._asked.move_to_end(robot_id)

    def _make_room(self) -> None:
        if len(self._present) < MAX_ROBOTS:
            return
        for robot_id, asked in self._asked.items():
            known, silent_s = self._present[robot_id], time.monotonic() - asked
            kept_s = STOPPED_S if robot_id in self._stops else SILENT_S if known.polling else 0.0
            if not known.sessions and silent_s >= kept_s:
                del self._present[robot_id], self._asked[robot_id]
                self._stops.pop(robot_id, None)
                self._unheard.discard(robot_id)
                return
        raise BusyError(f"{MAX_ROBOTS} robots are connected already")


def _host(address: str) -> str:
    """ipv4:10.0.0.7:51324 without the port."""
    return address.rpartition(":")[0]
