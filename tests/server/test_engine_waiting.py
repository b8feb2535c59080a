"""The line in front of the device, over arbitrary arrivals: latest wins, nobody is overtaken beyond the bound."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_contract import Observation
from pirl_server.policy.served_policy import PolicyRequest
from pirl_server.serving.request_queue import ACTIVE_S, PROMPT_S, BatchWindow, Request, RobotSlots

ASK = PolicyRequest(Observation({}, np.zeros(1, np.float32), ""), False, 0)


def request(robot: str, sequence: int = 0, session: str = "", version: str | None = None, at: float = 0.0) -> Request:
    return Request(ASK, robot, sequence, session, version, None, at, Future())


@dataclass
class Line:
    """Arrivals and batches in one order of time, and what the queue did with them."""

    versions: dict[str, str | None]
    rows: int

    def __post_init__(self) -> None:
        self.waiting, self.clock = RobotSlots(), 0
        self.placed: dict[str, int] = {}
        self.served: list[tuple[int, str, int, int]] = []
        """batch number, robot, when its place was taken, when it was served"""
        self.batches: list[list[Request]] = []

    def arrive(self, robot: str) -> None:
        self.clock += 1
        lost = self.waiting.put(request(robot, version=self.versions[robot], at=float(self.clock)))
        assert (lost is not None) == (robot in self.placed)
        self.placed.setdefault(robot, self.clock)

    def serve(self) -> None:
        self.clock += 1
        taken = self.waiting.take(self.rows, "v1")
        self.batches.append(taken)
        for each in taken:
            self.served.append((len(self.batches), each.robot_id, self.placed.pop(each.robot_id), self.clock))


ROBOTS = ("a", "b", "c", "d", "e")
STEPS = st.lists(st.one_of(st.sampled_from(ROBOTS), st.just("serve")), max_size=120)
VERSIONS = st.fixed_dictionaries({robot: st.sampled_from([None, "v1", "v2", "v3"]) for robot in ROBOTS})


def run(steps: list[str], versions: dict[str, str | None], rows: int) -> Line:
    line = Line(versions, rows)
    for step in [*steps, *["serve"] * (len(ROBOTS) + 1)]:
        line.serve() if step == "serve" else line.arrive(step)
    return line


def overtaking(line: Line) -> Counter[tuple[str, str, int]]:
    """How often `other` was served, in an earlier batch, by a place that it took after the one of `robot`."""
    found: Counter[tuple[str, str, int]] = Counter()
    for batch, robot, placed, _ in line.served:
        for earlier, other, other_placed, _ in line.served:
            if other != robot and other_placed > placed and earlier < batch:
                found[robot, other, placed] += 1
    return found


@settings(max_examples=300, deadline=None)
@given(STEPS, VERSIONS, st.integers(1, 6))
def test_a_batch_is_of_one_version_and_no_robot_stands_in_it_twice(
    steps: list[str], versions: dict[str, str | None], rows: int
) -> None:
    line = run(steps, versions, rows)
    for batch in line.batches:
        assert len({each.version or "v1" for each in batch}) <= 1
        assert len({each.robot_id for each in batch}) == len(batch) <= rows
    assert len(line.waiting) == 0, "as many batches as robots empty the line"


@settings(max_examples=300, deadline=None)
@given(STEPS, VERSIONS, st.integers(1, 6))
def test_a_flood_costs_the_others_one_request(steps: list[str], versions: dict[str, str | None], rows: int) -> None:
    line = run(steps, versions, rows)
    assert all(count <= 1 for count in overtaking(line).values())
    for batch, robot, placed, served in line.served:
        ahead = Counter(
            other
            for earlier, other, other_placed, other_served in line.served
            if other != robot and earlier < batch and placed < other_served < served
        )
        assert all(count <= 2 for count in ahead.values()), "the one that stood there already, and one ride"


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 6))
def test_with_one_version_nobody_is_overtaken(steps: list[str], rows: int) -> None:
    assert not overtaking(run(steps, dict.fromkeys(ROBOTS), rows))


def test_the_property_sees_an_unfair_queue() -> None:
    """The control: a line in which a replaced request goes to the end, as a plain queue has it, overtakes."""
    line = run(["a", "b", "a", "b", "serve", "a", "serve", "b"], dict.fromkeys(ROBOTS), 1)
    assert not overtaking(line)
    line.served = [(1, "a", 2, 3), (2, "a", 4, 5), (3, "a", 6, 7), (4, "b", 1, 8)]
    assert overtaking(line)["b", "a", 1] == 3


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", "s1", "s2"])), min_size=1, max_size=20))
def test_the_newest_of_a_robot_waits_and_all_others_lost(arrivals: list[tuple[int, str]]) -> None:
    waiting, lost = RobotSlots(), list[Request]()
    held: Request | None = None
    everything = [request("a", sequence, session) for sequence, session in arrivals]
    for each in everything:
        loser = waiting.put(each)
        late = held is not None and each.session == held.session and 0 < each.sequence < held.sequence
        assert loser is (each if late else held)
        held = held if late else each
        lost += [loser] if loser is not None else []
    (taken,) = waiting.take(16, "v1")
    assert taken is held
    assert {id(each) for each in everything} == {id(taken), *map(id, lost)}
    assert len(lost) == len(everything) - 1


def test_a_replaced_request_does_not_renew_its_place() -> None:
    waiting = RobotSlots()
    for at, robot in enumerate(("a", "b", "a", "a")):
        waiting.put(request(robot, at=float(at)))
    assert waiting.since == 0.0, "else a robot that floods would hold the window open"
    assert [each.robot_id for each in waiting.take(16, "v1")] == ["a", "b"]


def test_dropped_requests_give_their_places_back() -> None:
    waiting = RobotSlots()
    for robot in "abc":
        waiting.put(request(robot, version="v2" if robot == "b" else None))
    assert waiting.wants("v2")
    assert [each.robot_id for each in waiting.drop(lambda each: each.version == "v2")] == ["b"]
    assert not waiting.wants("v2")
    assert ("b" in waiting, len(waiting)) == (False, 2)


def test_a_lone_robot_is_not_waited_for() -> None:
    window = BatchWindow(0.003)
    window.saw("a", 10.0)
    assert window.remaining_s(1, 16, since=10.0, now=10.0) == 0.0
    window.saw("b", 10.001)
    assert window.remaining_s(2, 16, since=10.0, now=10.001) == 0.0, "all who are active wait already"
    assert window.remaining_s(1, 16, since=10.0, now=10.001) == pytest.approx(0.002), "b may come"
    assert window.remaining_s(1, 1, since=10.0, now=10.001) == 0.0, "the batch is full"
    assert window.remaining_s(1, 16, since=10.0, now=10.1) == 0.0, "the time is over"


def asked_and_answered(think_s: float, wait_s: float = 0.003) -> BatchWindow:
    """Two robots, both answered at 10.1; b asked `think_s` after the answer before that."""
    window = BatchWindow(wait_s)
    for robot in ("a", "b"):
        window.saw(robot, 9.9)
    window.ended(["a", "b"], 10.0)
    window.saw("a", 10.05)
    window.saw("b", 10.0 + think_s)
    window.ended(["a", "b"], 10.1)
    window.saw("a", 10.1)
    return window


def test_who_asks_as_soon_as_it_is_answered_is_waited_for() -> None:
    """Else such robots take turns, two batches per answer."""
    window = asked_and_answered(think_s=0.001)
    assert window.remaining_s(1, 16, since=10.0, now=10.1) == pytest.approx(PROMPT_S)
    assert window.remaining_s(2, 16, since=10.0, now=10.1) == 0.0, "all are there"
    window.saw("c", 10.101)
    window.saw("b", 10.102)
    assert window.remaining_s(2, 16, since=10.0, now=10.102) == 0.0, "whom it waited for is there"


def test_who_asks_by_its_own_clock_makes_nobody_wait() -> None:
    assert asked_and_answered(think_s=0.05).remaining_s(1, 16, since=10.0, now=10.1) == 0.0
    assert asked_and_answered(think_s=0.001, wait_s=0.0).remaining_s(1, 16, since=10.0, now=10.1) == 0.0, "no window"


def test_who_is_silent_is_not_waited_for() -> None:
    window = BatchWindow(0.003)
    window.saw("b", 10.0)
    window.saw("a", 10.0)
    window.saw("a", 10.5 + ACTIVE_S)
    assert window.remaining_s(1, 16, since=10.5 + ACTIVE_S, now=10.5 + ACTIVE_S) == 0.0
