"""Playing chunks: in order, each action once, late ones never."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pirl_ros.chunk_buffer import ChunkBuffer, PlayableChunk


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
    buffer = ChunkBuffer()
    assert buffer.offer(chunk(1)) == ""
    assert play_all(buffer) == [[1, 0], [1, 1], [1, 2]]
    assert buffer.next() is None


def test_a_chunk_shorter_than_execute_horizon_ends_with_its_last_action() -> None:
    buffer = ChunkBuffer()
    buffer.offer(chunk(1, horizon=2, execute=5))
    assert len(play_all(buffer)) == 2


def test_a_newer_chunk_replaces_the_present_one() -> None:
    buffer = ChunkBuffer()
    buffer.offer(chunk(1))
    buffer.next()
    buffer.offer(chunk(2))
    assert play_all(buffer)[0] == [2, 0]


def test_repeated_and_late_chunks_are_dropped_in_words() -> None:
    buffer = ChunkBuffer()
    buffer.offer(chunk(2))
    assert "late" in buffer.offer(chunk(2))
    assert "late" in buffer.offer(chunk(1))
    assert play_all(buffer)[0] == [2, 0]


def test_an_ended_episode_stays_ended_and_a_new_one_may_count_anew() -> None:
    buffer = ChunkBuffer()
    buffer.offer(chunk(5, "old"))
    buffer.end("old")
    assert buffer.next() is None
    assert "ended" in buffer.offer(chunk(6, "old"))
    assert buffer.offer(chunk(1, "new")) == ""
    assert buffer.episode_id == "new"


@given(st.lists(st.one_of(st.integers(0, 20), st.none()), max_size=60))
def test_sequences_played_never_fall_and_no_action_is_played_twice(events: list[int | None]) -> None:
    buffer, played = ChunkBuffer(), []
    for event in events:
        if event is not None:
            buffer.offer(chunk(event))
        elif (step := buffer.next()) is not None:
            played.append((step.chunk.sequence, step.index))
    assert played == sorted(set(played))
