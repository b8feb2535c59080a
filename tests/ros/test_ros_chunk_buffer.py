"""Playing chunks: in order, each action once, late ones never."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pirl_ros.control.chunk_buffer import ChunkBuffer, Missing, Play, PlayableChunk, Stale
from pirl_ros.sensing.state_history import Measured, StateHistory

PERIOD_NS = 20_000_000


def chunk(sequence: int, episode: str = "e", horizon: int = 4, execute: int = 3) -> PlayableChunk:
    actions = np.full((horizon, 2), sequence, np.float32)
    actions[:, 1] = np.arange(horizon)
    return PlayableChunk(episode, sequence, f"{episode}{sequence}", actions, execute, 0)


def observed(received_ns: float | None) -> StateHistory:
    """States in which stamp 0, that of every chunk here, was received at this time; None: at an unknown one."""
    states = StateHistory()
    if received_ns is not None:
        states.push(Measured(0, round(received_ns), np.zeros(1)))
    return states


def next_action(buffer: ChunkBuffer) -> Play | None:
    step = buffer.next(0, observed(None))
    return step if isinstance(step, Play) else None


def play_all(buffer: ChunkBuffer) -> list[list[float]]:
    played = []
    while (step := next_action(buffer)) is not None:
        assert step.index == step.action[1]
        played.append(step.action.tolist())
    return played


def test_plays_execute_horizon_actions_from_the_start() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    assert buffer.accept(chunk(1)) == ""
    assert play_all(buffer) == [[1, 0], [1, 1], [1, 2]]
    assert buffer.next(0, observed(None)) == Missing(0)


def test_a_chunk_shorter_than_execute_horizon_ends_with_its_last_action() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    buffer.accept(chunk(1, horizon=2, execute=5))
    assert len(play_all(buffer)) == 2


def test_a_newer_chunk_replaces_the_present_one() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    buffer.accept(chunk(1))
    next_action(buffer)
    buffer.accept(chunk(2))
    assert play_all(buffer)[0] == [2, 0]


def test_repeated_and_late_chunks_are_dropped_in_words() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    buffer.accept(chunk(2))
    assert "late" in buffer.accept(chunk(2))
    assert "late" in buffer.accept(chunk(1))
    assert play_all(buffer)[0] == [2, 0]


def test_an_ended_episode_stays_ended_and_a_new_one_may_count_anew() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    buffer.accept(chunk(5, "old"))
    buffer.end("old")
    assert buffer.next(0, observed(None)) == Missing(0)
    assert "ended" in buffer.accept(chunk(6, "old"))
    assert buffer.accept(chunk(1, "new")) == ""
    assert buffer.episode_id == "new"


@given(st.lists(st.one_of(st.integers(0, 20), st.none()), max_size=60))
def test_sequences_played_never_fall_and_no_action_is_played_twice(events: list[int | None]) -> None:
    buffer, played = ChunkBuffer(PERIOD_NS), []
    for event in events:
        if event is not None:
            buffer.accept(chunk(event))
        elif (step := next_action(buffer)) is not None:
            played.append((step.chunk.sequence, step.index))
    assert played == sorted(set(played))


def by_time(link_loss_periods: int = 5) -> ChunkBuffer:
    return ChunkBuffer(PERIOD_NS, link_loss_periods * PERIOD_NS)


def at(buffer: ChunkBuffer, period: float, captured: float | None = None) -> int | None:
    """Index played in this period."""
    step = buffer.next(round(period * PERIOD_NS), observed(None if captured is None else captured * PERIOD_NS))
    return step.index if isinstance(step, Play) else None


def test_by_time_a_chunk_is_entered_after_what_was_played_since_its_observation() -> None:
    buffer = by_time()
    buffer.accept(chunk(1, horizon=8, execute=8))
    assert [at(buffer, period, 0) for period in range(5)] == [0, 1, 2, 3, 4]
    buffer.accept(chunk(2, horizon=8, execute=8))
    assert at(buffer, 5, captured=2) == 3, "played in periods 2, 3 and 4"
    buffer.accept(chunk(3, horizon=2, execute=2))
    assert at(buffer, 6, captured=2) is None, "overdue as a whole"


def test_by_time_waiting_makes_nothing_overdue() -> None:
    """A policy that is asked while the arm stands is played from its first action, however long it thought."""
    buffer = by_time(link_loss_periods=1)
    buffer.accept(chunk(1, horizon=2, execute=2))
    assert [at(buffer, period, 0) for period in range(4)] == [0, 1, None, None]
    buffer.accept(chunk(2))
    assert at(buffer, 30, captured=2) == 0


def test_by_time_a_missed_period_is_passed_over_and_jitter_is_not() -> None:
    buffer = by_time()
    buffer.accept(chunk(1, horizon=9, execute=9))
    assert [at(buffer, period, 0) for period in (0, 1.3, 1.8, 3.2, 6, 7)] == [0, 1, 2, 3, 6, 7]


def test_the_rest_of_a_chunk_is_played_for_a_while_when_no_newer_one_comes() -> None:
    buffer = by_time(link_loss_periods=2)
    buffer.accept(chunk(1, horizon=10, execute=3))
    steps = [buffer.next(period * PERIOD_NS, observed(0)) for period in range(8)]
    assert [(step.index, step.drained) if isinstance(step, Play) else step for step in steps] == [
        (0, False), (1, False), (2, False), (3, True), (4, True), (5, True),
        Missing(3 * PERIOD_NS), Missing(4 * PERIOD_NS),
    ]  # fmt: skip
    assert buffer.next(8 * PERIOD_NS, observed(0)) == Missing(5 * PERIOD_NS)
    buffer.accept(chunk(2))
    assert at(buffer, 9, captured=8) == 0
    buffer.drop()
    assert buffer.next(9 * PERIOD_NS, observed(8 * PERIOD_NS)) == Missing(0)


def test_what_is_left_is_known() -> None:
    buffer = by_time()
    assert buffer.remaining() is None
    buffer.accept(chunk(1, horizon=5, execute=3))
    first = buffer.next(0, observed(None))
    assert isinstance(first, Play)
    assert first.entered
    left = buffer.remaining()
    assert left is not None
    assert left[:, 1].tolist() == [1, 2, 3, 4]
    assert buffer.depth == 2
    second = buffer.next(PERIOD_NS, observed(None))
    assert isinstance(second, Play)
    assert not second.entered


def test_after_a_flush_only_a_newer_observation_is_played_and_none_is_missing() -> None:
    buffer = by_time(link_loss_periods=1)
    buffer.accept(chunk(1, horizon=1, execute=1))
    assert at(buffer, 0, captured=0) == 0
    assert buffer.next(3 * PERIOD_NS, observed(0)) == Missing(2 * PERIOD_NS)
    buffer.accept(chunk(2))
    buffer.flush(2 * PERIOD_NS)
    assert buffer.next(3 * PERIOD_NS, observed(0)) == Missing(0)
    buffer.accept(chunk(3))
    assert buffer.next(4 * PERIOD_NS, observed(2 * PERIOD_NS)) == Stale()
    assert buffer.next(4 * PERIOD_NS, observed(2 * PERIOD_NS)) == Missing(0), "it was dropped"
    buffer.accept(chunk(4))
    assert at(buffer, 5, captured=2.1) == 0


def test_a_chunk_of_another_rate_is_refused_in_words() -> None:
    slow = PlayableChunk("e", 1, "c", np.zeros((2, 2), np.float32), 2, 0, dt_s=0.1)
    assert "step of 0.1 s, this arm's control period is 0.02 s" in by_time().accept(slow)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0.5, 3), st.integers(0, 10)), max_size=60))
def test_by_time_no_action_is_played_twice_either(events: list[tuple[int, float, int]]) -> None:
    buffer, played, now = by_time(), [], 20.0
    for sequence, pause, age in events:
        now += pause
        buffer.accept(chunk(sequence, horizon=9, execute=6))
        step = buffer.next(round(now * PERIOD_NS), observed((now - age) * PERIOD_NS))
        if isinstance(step, Play):
            played.append((step.chunk.sequence, step.index))
    assert played == sorted(set(played))
