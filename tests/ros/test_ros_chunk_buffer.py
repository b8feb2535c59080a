"""Playing chunks: in order, each action once, late ones never."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pirl_ros.control.chunk_buffer import ChunkBuffer, PlayableChunk

PERIOD_NS = 20_000_000


def chunk(sequence: int, episode: str = "e", horizon: int = 4, execute: int = 3) -> PlayableChunk:
    actions = np.full((horizon, 2), sequence, np.float32)
    actions[:, 1] = np.arange(horizon)
    return PlayableChunk(episode, sequence, f"{episode}{sequence}", actions, execute, 0)


def play_all(buffer: ChunkBuffer) -> list[list[float]]:
    played = []
    while (step := buffer.next()) is not None:
        assert step.index == step.action[1]
        played.append(step.action.tolist())
    return played


def test_plays_execute_horizon_actions_from_the_start() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    assert buffer.offer(chunk(1)) == ""
    assert play_all(buffer) == [[1, 0], [1, 1], [1, 2]]
    assert buffer.next() is None


def test_a_chunk_shorter_than_execute_horizon_ends_with_its_last_action() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    buffer.offer(chunk(1, horizon=2, execute=5))
    assert len(play_all(buffer)) == 2


def test_a_newer_chunk_replaces_the_present_one() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    buffer.offer(chunk(1))
    buffer.next()
    buffer.offer(chunk(2))
    assert play_all(buffer)[0] == [2, 0]


def test_repeated_and_late_chunks_are_dropped_in_words() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    buffer.offer(chunk(2))
    assert "late" in buffer.offer(chunk(2))
    assert "late" in buffer.offer(chunk(1))
    assert play_all(buffer)[0] == [2, 0]


def test_an_ended_episode_stays_ended_and_a_new_one_may_count_anew() -> None:
    buffer = ChunkBuffer(PERIOD_NS)
    buffer.offer(chunk(5, "old"))
    buffer.end("old")
    assert buffer.next() is None
    assert "ended" in buffer.offer(chunk(6, "old"))
    assert buffer.offer(chunk(1, "new")) == ""
    assert buffer.episode_id == "new"


@given(st.lists(st.one_of(st.integers(0, 20), st.none()), max_size=60))
def test_sequences_played_never_fall_and_no_action_is_played_twice(events: list[int | None]) -> None:
    buffer, played = ChunkBuffer(PERIOD_NS), []
    for event in events:
        if event is not None:
            buffer.offer(chunk(event))
        elif (step := buffer.next()) is not None:
            played.append((step.chunk.sequence, step.index))
    assert played == sorted(set(played))


def by_time(link_loss_periods: int = 5) -> ChunkBuffer:
    return ChunkBuffer(PERIOD_NS, link_loss_periods * PERIOD_NS)


def at(buffer: ChunkBuffer, period: float, captured: float | None = None) -> int | None:
    """Index played in this period."""
    step = buffer.next(round(period * PERIOD_NS), None if captured is None else round(captured * PERIOD_NS))
    return None if step is None else step.index


def test_by_time_a_chunk_is_entered_after_what_was_played_since_its_observation() -> None:
    buffer = by_time()
    buffer.offer(chunk(1, horizon=8, execute=8))
    assert [at(buffer, period, 0) for period in range(5)] == [0, 1, 2, 3, 4]
    buffer.offer(chunk(2, horizon=8, execute=8))
    assert at(buffer, 5, captured=2) == 3, "played in periods 2, 3 and 4"
    buffer.offer(chunk(3, horizon=2, execute=2))
    assert at(buffer, 6, captured=2) is None, "overdue as a whole"


def test_by_time_waiting_makes_nothing_overdue() -> None:
    """A policy that is asked while the arm stands is played from its first action, however long it thought."""
    buffer = by_time(link_loss_periods=1)
    buffer.offer(chunk(1, horizon=2, execute=2))
    assert [at(buffer, period, 0) for period in range(4)] == [0, 1, None, None]
    buffer.offer(chunk(2))
    assert at(buffer, 30, captured=2) == 0


def test_by_time_a_missed_period_is_passed_over_and_jitter_is_not() -> None:
    buffer = by_time()
    buffer.offer(chunk(1, horizon=9, execute=9))
    assert [at(buffer, period, 0) for period in (0, 1.3, 1.8, 3.2, 6, 7)] == [0, 1, 2, 3, 6, 7]


def test_the_rest_of_a_chunk_is_played_for_a_while_when_no_newer_one_comes() -> None:
    buffer = by_time(link_loss_periods=2)
    buffer.offer(chunk(1, horizon=10, execute=3))
    steps = [buffer.next(period * PERIOD_NS, 0) for period in range(8)]
    assert [None if step is None else (step.index, step.drained) for step in steps] == [
        (0, False), (1, False), (2, False), (3, True), (4, True), (5, True), None, None,
    ]  # fmt: skip
    assert buffer.missing_ns(8 * PERIOD_NS) == 5 * PERIOD_NS
    buffer.offer(chunk(2))
    assert at(buffer, 9, captured=8) == 0
    assert buffer.missing_ns(9 * PERIOD_NS) == 0


def test_what_is_left_is_known() -> None:
    buffer = by_time()
    assert buffer.remaining() is None
    buffer.offer(chunk(1, horizon=5, execute=3))
    assert buffer.waiting is not None
    assert not buffer.under_way
    at(buffer, 0)
    left = buffer.remaining()
    assert left is not None
    assert left[:, 1].tolist() == [1, 2, 3, 4]
    assert buffer.depth == 2
    assert buffer.waiting is None
    assert buffer.under_way


def test_a_chunk_of_another_rate_is_refused_in_words() -> None:
    slow = PlayableChunk("e", 1, "c", np.zeros((2, 2), np.float32), 2, 0, dt_s=0.1)
    assert "step of 0.1 s, this arm's control period is 0.02 s" in by_time().offer(slow)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0.5, 3), st.integers(0, 10)), max_size=60))
def test_by_time_no_action_is_played_twice_either(events: list[tuple[int, float, int]]) -> None:
    buffer, played, now = by_time(), [], 0.0
    for sequence, pause, age in events:
        now += pause
        buffer.offer(chunk(sequence, horizon=9, execute=6))
        step = buffer.next(round(now * PERIOD_NS), round((now - age) * PERIOD_NS))
        if step is not None:
            played.append((step.chunk.sequence, step.index))
    assert played == sorted(set(played))
