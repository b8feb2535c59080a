"""The offset between two clocks, against simulated networks where the truth is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pirl_contract.clock_sync import DRIFT, ClockSync

MS = 1_000_000
DELAYS = st.integers(10_000, 200 * MS)


class World:
    """A robot and a server whose clock runs `rate` times as fast and is `offset` ahead at the robot's zero."""

    def __init__(self, offset: int, rate: float) -> None:
        self.now, self.offset, self.rate = 1000 * MS, offset, rate
        self.sync = ClockSync()

    def server(self, at: int) -> int:
        return round(at * self.rate) + self.offset

    def call(self, out: int, work: int, back: int) -> bool:
        sent, received = self.now, self.now + out
        replied, self.now = received + work, received + work + back
        return self.sync.add(sent, self.server(received), self.server(replied), self.now)

    @property
    def error(self) -> float:
        best = self.sync.best()
        assert best is not None
        return abs(best.offset_ns - (self.server(self.now) - self.now))

    @property
    def bound(self) -> float:
        best = self.sync.best()
        assert best is not None
        return best.error_ns(self.now)


@given(
    st.integers(-(10**15), 10**15),
    st.floats(-DRIFT / 2, DRIFT / 2),
    st.lists(st.tuples(DELAYS, DELAYS, DELAYS, st.integers(0, 2000 * MS)), min_size=1, max_size=30),
)
def test_the_error_is_within_half_the_round_trip_and_the_drift(
    offset: int, drift: float, calls: list[tuple[int, int, int, int]]
) -> None:
    """However the delay is split between the two ways."""
    world = World(offset, 1.0 + drift)
    for out, work, back, pause in calls:
        assert world.call(out, work, back)
        assert world.error <= world.bound + 2 + DRIFT * (out + work + back)
        world.now += pause


def test_the_shortest_round_trip_is_believed_not_the_last() -> None:
    """The control: a filter that took the last sample would be off by 49 ms here."""
    world = World(5 * MS, 1.0)
    world.call(MS, 0, MS)
    for _ in range(6):
        world.call(100 * MS, 0, 2 * MS)
    assert world.error < 0.1 * MS
    alone = World(5 * MS, 1.0)
    alone.call(100 * MS, 0, 2 * MS)
    assert alone.error == pytest.approx(49 * MS)


def test_old_samples_leave_the_window() -> None:
    world = World(0, 1.0)
    world.call(1000, 0, 1000)
    for _ in range(8):
        world.call(3 * MS, 0, MS)
    assert world.sync.best().delay_ns == 4 * MS


@given(st.integers(20 * MS, 10**15), st.sampled_from([-1, 1]), st.integers(0, 10**6))
def test_another_clock_is_noticed_at_once(jump: int, sign: int, seed: int) -> None:
    """The server was started anew on another machine: what the old samples say is forgotten."""
    draw = random.Random(seed)
    world = World(0, 1.0)
    for _ in range(5):
        world.call(draw.randrange(1, MS), 0, draw.randrange(1, MS))
    world.offset += sign * jump
    world.call(draw.randrange(1, MS), 0, draw.randrange(1, MS))
    assert world.error <= world.bound + 2


def test_stamps_that_contradict_themselves_are_left_out() -> None:
    sync = ClockSync()
    assert not sync.add(100, 0, 0, 99)
    assert not sync.add(100, 50, 40, 200)
    assert not sync.add(100, 0, 500, 200), "the server worked longer than the whole call took"
    with pytest.raises(ValueError, match="unknown"):
        sync.to_robot_ns(5, 0)
    assert sync.add(100, 1150, 1150, 200)
    assert sync.to_robot_ns(1150, 200) == 150
