"""The bounded request queue: requests and batches, one slot per robot, batch window, counters.

No lock of its own, and no notification: it returns rejected requests, for its caller to notify without a lock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from pirl_server.policy.served_policy import PolicyRequest, PolicySample, ServedPolicy
from pirl_server.serving.errors import BusyError, ExpiredError, SupersededError


@dataclass(slots=True)  # not frozen, as the others here: for each request that costs microseconds
class Inference:
    """One answered request."""

    sample: PolicySample
    policy: ServedPolicy
    """the policy that drew it, whichever is current by now"""
    queue_ms: float
    """from `submit` to the start of its batch, the batching window included"""
    infer_ms: float
    """the whole batch on the device, which had finished"""
    rows: int = 1
    """requests that were answered by the same pass over the device"""


@dataclass(slots=True)
class Request:
    """One queued inference request. `answer` is set by the thread that takes it out of the queue."""

    ask: PolicyRequest
    robot_id: str
    sequence: int
    session: str
    version: str | None
    """None: whichever is current when the device is free"""
    deadline: float | None
    """`time.monotonic()`"""
    submitted: float
    answer: Future[Inference]

    @property
    def given_up(self) -> bool:
        """Whether the asker has cancelled it."""
        return self.answer.cancelled()

    def expired(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and now > self.deadline

    def refuse(self, reason: Exception) -> None:
        """End it with an error, unless its asker gave it up. Never under a lock: callbacks of the future run here."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(reason)


@dataclass(slots=True)
class Batch:
    """One pass over the device, as observers see it: rows in the order in which they were drawn."""

    policy: ServedPolicy
    requests: tuple[Request, ...]
    answers: tuple[Inference | Exception, ...]
    """per request; an exception is this row's own fault"""
    infer_ms: float
    idle: bool
    """drawn because nothing else waited, for comparison only: no robot was answered"""


Refused = Sequence[tuple[Request, Exception]]


class RequestQueue:
    """`size` robots may wait; a batch holds up to `rows`. Times are `time.monotonic()`."""

    def __init__(self, size: int, rows: int, window_s: float) -> None:
        self.size, self._rows = size, rows
        self.waiting, self.tally = RobotSlots(), Tally()
        self._window = BatchWindow(window_s)

    def admit(self, request: Request) -> Refused:
        """Give the request its robot's place; return who is rejected for it. Raises BusyError when there is no room."""
        refused = list[tuple[Request, Exception]]()
        if len(self.waiting) >= self.size and request.robot_id not in self.waiting:
            refused = [*self._unwanted(request.submitted)]
            if not refused:
                self.tally.counts["refused"] += 1
                raise self._busy()
        older = self.waiting.put(request)
        if older is not None:
            self.tally.counts["superseded"] += 1
            refused.append((older, SupersededError(f"robot '{request.robot_id}' sent a newer request")))
        self._window.saw(request.robot_id, request.submitted)
        return refused

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next batch is due; None: no request waits."""
        if not self.waiting:
            return None
        return self._window.remaining_s(len(self.waiting), self._rows, self.waiting.since, now)

    def answered(self, batch: Batch, now: float) -> None:
        """Count a batch that is done."""
        self.tally.add(batch)
        if not batch.idle:
            self._window.ended((request.robot_id for request in batch.requests), now)

    def take(self, current: str, now: float) -> tuple[list[Request], Refused]:
        """Return the rows of the next batch, all of one version, and who is rejected instead."""
        refused = self._unwanted(now)
        return self.waiting.take(self._rows, current), refused

    def _unwanted(self, now: float) -> Refused:
        refused = list[tuple[Request, Exception]]()
        for request in self.waiting.drop(lambda each: each.given_up or each.expired(now)):
            late_ms = 1000 * (now - request.deadline) if request.deadline is not None else 0.0
            self.tally.counts["given_up" if request.given_up else "expired"] += 1
            refused.append((request, ExpiredError(f"waited until {late_ms:.0f} ms after its deadline")))
        return refused

    def _busy(self) -> BusyError:
        batches = 1 + math.ceil(len(self.waiting) / self._rows)  # the one on the device comes first
        hint_s = batches * self.tally.mean_batch_ms / 1000
        return BusyError(f"{self.size} requests are already waiting: retry in {hint_s:.2f} s", hint_s)


def tell(refused: Refused) -> None:
    """Answer the rejected. Never under a lock: callbacks of their futures run here."""
    for request, reason in refused:
        request.refuse(reason)


# The queue in front of the device: one place per robot, the newest request of each in it.
# Places are served in the order in which they were taken. A newer request takes over its robot's place, so a robot that
# floods replaces its own requests and never stands twice in the line: at most one of its requests is served before one
# of another robot that waits already (two where the other waits for another policy version: see `take`). Plain data, no
# thread and no clock of its own.


@dataclass
class _Place:
    since: float
    request: Request


class RobotSlots:
    """Requests in the order of their robots' places."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}  # a dict keeps the place of a key whose value is replaced

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, robot_id: str) -> bool:
        return robot_id in self._places

    @property
    def since(self) -> float:
        """When the first place was taken. Not for an empty queue."""
        return next(iter(self._places.values())).since

    def put(self, request: Request) -> Request | None:
        """Take the robot's place; return the request that lost it: the older one, which may be the one just put.

        Within a session the higher sequence is the newer; a 0, another session, or the same number: the later arrival.
        """
        place = self._places.get(request.robot_id)
        if place is None:
            self._places[request.robot_id] = _Place(request.submitted, request)
            return None
        held = place.request
        if request.session == held.session and 0 < request.sequence < held.sequence:
            return request
        place.request = request
        return held

    def take(self, rows: int, current: str) -> list[Request]:
        """Take the first request and, in order, those for the same version: up to `rows`. Without version: `current`.

        Those of other versions keep their places: no batch mixes versions, and none overtakes what waits before it
        by more than a ride in a batch that had to come first anyway.
        """
        version, taken = "", list[str]()
        for robot_id, place in self._places.items():
            wanted = place.request.version or current
            version = version or wanted
            if wanted == version and len(taken) < rows:
                taken.append(robot_id)
        return [self._places.pop(robot_id).request for robot_id in taken]

    def drop(self, unwanted: Callable[[Request], bool]) -> list[Request]:
        """Take out, and return, what matches."""
        found = [robot_id for robot_id, place in self._places.items() if unwanted(place.request)]
        return [self._places.pop(robot_id).request for robot_id in found]

    def wants(self, version: str) -> bool:
        """Whether a request asks for this version by name."""
        return any(place.request.version == version for place in self._places.values())


ACTIVE_S = 1.0
"""a robot that asked within this time may ask again any moment"""
PROMPT_S = 0.01
"""a robot that asked this soon after its last answer asks as soon as it is answered, and is waited for so long"""


class BatchWindow:
    """Knows which robots are active and which of them ask at once. Times are `time.monotonic()`; not thread-safe."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._asked: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._prompt: set[str] = set()
        self._expected: set[str] = set()
        self._ended = 0.0

    def saw(self, robot_id: str, now: float) -> None:
        """Note that a robot asked."""
        self._asked.pop(robot_id, None)
        self._asked[robot_id] = now  # in the order of time, so that the silent ones stand first
        self._expected.discard(robot_id)
        answered = self._answered.pop(robot_id, None)
        if answered is not None:
            (self._prompt.add if now - answered <= PROMPT_S else self._prompt.discard)(robot_id)

    def ended(self, robot_ids: Iterable[str], now: float) -> None:
        """Note that these robots were answered together.

        Those that send the next request at once would miss a batch that starts now, and then take turns with the
        others: two batches per answer. Robots that ask by their own clock are not waited for: it would only make them
        wait.
        """
        answered = [robot_id for robot_id in robot_ids if robot_id in self._asked]
        self._answered.update(dict.fromkeys(answered, now))
        self._expected, self._ended = self._prompt.intersection(answered), now

    def remaining_s(self, waiting: int, rows: int, since: float, now: float) -> float:
        """Seconds until the batch should start; 0: now.

        `waiting` robots wait, the first `since` then; a batch holds `rows`. There is no robot to wait for when every
        active robot waits already, and no reason to when the batch is full.
        """
        self._forget(now)
        if waiting >= min(rows, len(self._asked)):
            return 0.0
        until = since + self._wait_s
        if self._expected and self._wait_s:
            until = max(until, self._ended + PROMPT_S)
        return max(0.0, until - now)

    def _forget(self, now: float) -> None:
        for robot_id in list(self._asked):
            if now - self._asked[robot_id] <= ACTIVE_S:
                break
            del self._asked[robot_id]
            self._answered.pop(robot_id, None)
            self._prompt.discard(robot_id)
            self._expected.discard(robot_id)


@dataclass(frozen=True)
class EngineStats:
    """A snapshot. Counts are of requests since the engine was made, and only ever rise."""

    waiting: int
    """requests that wait for the device now"""
    loaded: tuple[str, ...]
    """versions in memory, in the order in which they came"""
    current: str | None
    """the version that answers requests without one"""
    batches: Mapping[int, int]
    """rows -> number of batches of that many rows; without idle ones"""
    answered: int
    failed: int
    """that the policy rejected or broke down on"""
    superseded: int
    expired: int
    """deadline passed before the device was touched"""
    given_up: int
    """cancelled by the asker while they waited"""
    refused: int
    """queue full"""
    swaps: int
    """times that another version became current"""
    idle_answered: int
    """draws for comparison only"""
    last_batch_ms: float
    """0 before the first"""
    mean_batch_ms: float
    """exponential mean over some ten batches: what a retry hint is made of"""


@dataclass
class Tally:
    """Counts of a running engine, kept under its lock."""

    counts: Counter[str] = field(default_factory=Counter)
    batches: Counter[int] = field(default_factory=Counter)
    last_batch_ms: float = 0.0
    mean_batch_ms: float = 0.0

    def add(self, batch: Batch) -> None:
        """Count a finished batch."""
        answered = sum(isinstance(answer, Inference) for answer in batch.answers)
        if batch.idle:
            self.counts["idle_answered"] += answered
            return
        self.batches[len(batch.requests)] += 1
        self.counts["answered"] += answered
        self.counts["failed"] += len(batch.answers) - answered
        self.last_batch_ms = batch.infer_ms
        self.took(batch.infer_ms)

    def took(self, batch_ms: float) -> None:
        """Let a pass's time into the mean."""
        self.mean_batch_ms += (0.2 if self.mean_batch_ms else 1.0) * (batch_ms - self.mean_batch_ms)

    def snapshot(self, waiting: int, loaded: tuple[str, ...], current: str | None) -> EngineStats:
        """Return what is known now."""
        names = ("answered", "failed", "superseded", "expired", "given_up", "refused", "swaps", "idle_answered")
        return EngineStats(
            waiting=waiting,
            loaded=loaded,
            current=current,
            batches=dict(self.batches),
            last_batch_ms=self.last_batch_ms,
            mean_batch_ms=self.mean_batch_ms,
            **{name: self.counts[name] for name in names},
        )
