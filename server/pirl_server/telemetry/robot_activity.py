"""What each robot did lately: how long its results took, who drove, what its governor altered, and its last stop.

Listens to calls, so that serving knows nothing of it. What a robot did is what it reports of its executed steps; one
that reports none, as without an episode, is not known to be safe: it is unknown.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from google.protobuf.message import Message

from pirl_contract import Alteration, ControlSource
from pirl_server.rpc.interceptor import Call

MAX_ROBOTS = 1024
"""those that were silent for longest are forgotten first"""
RESULTS = 500
"""whose latency is kept, of each robot"""
STEPS = 1000
"""whose alterations are kept, of each robot"""
Safety = Literal["unknown", "clear", "limited", "holding", "stop_sent", "stopped"]
NOT_TAKEN = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "NOT_FOUND"})
"""statuses of calls whose outcomes were not kept"""
HELD = Alteration.NOT_FINITE | Alteration.STALE | Alteration.WATCHDOG
LIMITED = Alteration.LIMIT | Alteration.JUMP | Alteration.WORKSPACE
LATELY = 20
"""steps over which a limited robot counts as such"""
AFTER_STOP_S = 2.0
"""a step reported so soon after a stop may have been executed before it"""


@dataclass(frozen=True)
class Quantiles:
    """Of milliseconds from a request's arrival to its reply, within the server; `results` are how many."""

    p50: float
    p99: float
    results: int


@dataclass(frozen=True)
class Activity:
    """One robot, as of its last reports. Times are Unix seconds."""

    latency_ms: Quantiles | None
    """None: no result yet"""
    source: ControlSource | None
    """of the newest step; None: no step was reported"""
    alterations: Mapping[str, int]
    """kind -> steps of the last `steps` that have it"""
    altered_steps: int
    """of the last `steps`, those with any"""
    steps: int
    """newest steps that are counted here, `STEPS` at most"""
    last_step: float | None
    """when the newest one was reported"""
    stop_sent: float | None
    """when the last stop was sent from here; it says nothing of the arm"""
    safety: Safety


NOTHING = Activity(None, None, {}, 0, 0, None, None, "unknown")


@dataclass
class _Robot:
    results: deque[float] = field(default_factory=lambda: deque(maxlen=RESULTS))
    steps: deque[int] = field(default_factory=lambda: deque(maxlen=STEPS))
    source: int = 0
    last_step: float | None = None
    stop_sent: float | None = None


class RobotActivity:
    """Any thread. `robot_of(episode_id)` names the robot of a report, which names only its episode."""

    def __init__(self, robot_of: Callable[[str], str | None], now: Callable[[], float] = time.time) -> None:
        self._robot_of, self._now, self._lock = robot_of, now, threading.Lock()
        self._robots: OrderedDict[str, _Robot] = OrderedDict()

    def of(self, robot_id: str) -> Activity:
        """Return what is known of a robot."""
        with self._lock:
            found = self._robots.get(robot_id)
            if found is None:
                return NOTHING
            results, steps = sorted(found.results), list(found.steps)
            source, last_step, stop_sent = found.source, found.last_step, found.stop_sent
        return Activity(
            latency_ms=_quantiles(results) if results else None,
            source=ControlSource(source) if steps and source in set(ControlSource) else None,
            alterations=_alterations(steps),
            altered_steps=sum(bits != 0 for bits in steps),
            steps=len(steps),
            last_step=last_step,
            stop_sent=stop_sent,
            safety=safety(steps, last_step, stop_sent),
        )

    def stop_sent(self, robot_id: str) -> None:
        """Note that a stop was sent to a robot."""
        with self._lock:
            self._robot(robot_id).stop_sent = self._now()

    def began(self, call: Call) -> None:
        """Nothing is known yet: the call may still be rejected."""

    def ended(self, call: Call, reply: Message | None, code: str) -> None:
        """Remember how long an answered inference took, and the outcomes that were kept."""
        answered = call.rpc == "Infer" and reply is not None
        outcomes = () if code in NOT_TAKEN else getattr(call.request, "outcomes", ())
        if not answered and not outcomes:
            return
        robot_id = call.robot_id or self._robot_of(getattr(call.request, "episode_id", ""))
        if not robot_id:
            return
        with self._lock:
            robot = self._robot(robot_id)
            if answered:
                robot.results.append(1000 * call.seconds)
            if outcomes:
                robot.steps.extend(outcome.alterations for outcome in outcomes)
                robot.source, robot.last_step = outcomes[-1].source, self._now()

    def _robot(self, robot_id: str) -> _Robot:
        found = self._robots.setdefault(robot_id, _Robot())
        self._robots.move_to_end(robot_id)
        while len(self._robots) > MAX_ROBOTS:
            self._robots.popitem(last=False)
        return found


def safety(steps: Sequence[int], last_step: float | None, stop_sent: float | None) -> Safety:
    """Return where a robot stands by what it reported last; `steps` are the alterations of its steps, newest last.

    stopped: its last step was one of a latched stop. stop_sent: it was notified of a stop, and has reported no step
    since. holding: its last step was none of the policy's. limited: lately its governor changed steps.
    """
    if steps and steps[-1] & Alteration.EMERGENCY_STOP:
        return "stopped"
    if stop_sent is not None and (last_step is None or last_step < stop_sent + AFTER_STOP_S):
        return "stop_sent"
    if not steps:
        return "unknown"
    if steps[-1] & HELD:
        return "holding"
    return "limited" if any(bits & LIMITED for bits in steps[-LATELY:]) else "clear"


def _quantiles(results: Sequence[float]) -> Quantiles:
    """Nearest rank, of sorted values."""
    last = len(results) - 1
    return Quantiles(results[round(0.5 * last)], results[round(0.99 * last)], len(results))


def _alterations(steps: Sequence[int]) -> dict[str, int]:
    """Kind -> steps that have it, without those that none has."""
    counted = Counter(steps)
    by_kind = {bit: sum(count for bits, count in counted.items() if bits & bit) for bit in Alteration if bit}
    return {str(bit.name).lower(): count for bit, count in by_kind.items() if count}
