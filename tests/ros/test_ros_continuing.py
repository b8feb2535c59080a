"""What a question says of the chunk being played, and how one that does not continue it is faded in."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from driven_arm import DrivenArm, real_profile
from hypothesis import given
from hypothesis import strategies as st

from pirl_contract import ActionChunk, Alteration, StepOutcome
from pirl_ros.control.chunk_buffer import FADE_STEPS, ChunkBuffer, Play, PlayableChunk
from pirl_ros.policy_session.rtc import LatencyEstimate, RtcTracker
from pirl_ros.profile.profile import Profile
from pirl_ros.sensing.state_history import Measured, StateHistory

DT_S, DT_NS = 0.02, 20_000_000
BOTH = ("guided", "prefix")


def drawn(chunk_id: str = "c1", horizon: int = 10, start: float = 0.0) -> ActionChunk:
    actions = start + np.arange(horizon, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    return ActionChunk(actions, DT_S, chunk_id, "v1", 0, horizon - 2)


def outcome(index: int, time_ns: int, chunk_id: str = "c1", altered: Alteration = Alteration.NONE) -> StepOutcome:
    return StepOutcome(
        chunk_id, index, np.zeros(2, np.float32), np.zeros(2, np.float32), alterations=altered, time_ns=time_ns
    )


def playing(index: int = 3, time_ns: int = 5 * DT_NS, age_ns: int = 0) -> RtcTracker:
    continuing = RtcTracker()
    continuing.begin(drawn())
    for i in range(index + 1):
        continuing.report(outcome(i, time_ns - (index - i) * DT_NS))
    continuing.age.add(age_ns)
    return continuing


@pytest.mark.parametrize(("periods", "first"), [(0, 4), (2, 6), (-1, 3), (0.3, 4)])
def test_it_is_what_is_commanded_from_the_capture_on(periods: float, first: int) -> None:
    """The state that an action led to is the one in which the next is commanded; late reports are made up for."""
    found = playing().from_stamp(round((5 + periods) * DT_NS), BOTH)
    assert found is not None
    assert found.actions[:, 0].tolist() == list(range(first, 10))
    assert found.chunk_id == "c1"


@pytest.mark.parametrize(("age_s", "delay"), [(0.0, 1), (0.019, 2), (0.05, 4), (3.0, 6)])
def test_the_delay_covers_the_age_of_answers_within_what_is_left(age_s: float, delay: int) -> None:
    found = playing(age_ns=round(age_s * 1e9)).from_stamp(5 * DT_NS, BOTH)
    assert found is not None
    assert found.inference_delay == delay
    assert delay == min(math.ceil(age_s / DT_S) + 1, 6)


def test_something_is_left_to_draw_even_where_the_chunk_has_just_begun() -> None:
    continuing = playing(0, 5 * DT_NS, age_ns=10**9)
    found = continuing.from_stamp(4 * DT_NS, BOTH)
    assert found is not None
    assert (len(found.actions), found.inference_delay) == (10, 9)


def test_the_method_is_one_that_the_server_offers() -> None:
    for offered, asked in ((BOTH, "prefix"), (("guided",), "guided"), (("prefix",), "prefix")):
        found = playing().from_stamp(5 * DT_NS, offered)
        assert found is not None
        assert found.method == asked
    assert playing().from_stamp(5 * DT_NS, ()) is None


def test_nothing_is_continued_that_is_not_being_played() -> None:
    assert RtcTracker().from_stamp(0, BOTH) is None
    waiting = RtcTracker()
    waiting.begin(drawn())
    assert waiting.from_stamp(0, BOTH) is None, "come, but not entered"
    waiting.report(outcome(7, 0, "c0"))
    waiting.report(outcome(0, DT_NS))
    assert waiting.from_stamp(DT_NS, BOTH) is not None, "the chunk before was still played when this one came"
    assert playing().from_stamp(12 * DT_NS, BOTH) is None, "played out by then"
    for last in (outcome(1, 6 * DT_NS, ""), outcome(4, 6 * DT_NS, altered=Alteration.STALE)):
        stopped = playing()
        stopped.report(last)
        assert stopped.from_stamp(6 * DT_NS, BOTH) is None, "a person or a stop drove, or the rest was refused"
    paused = playing()
    paused.begin()
    assert paused.from_stamp(5 * DT_NS, BOTH) is None


def test_one_hiccup_among_many_answers_is_forgiven_two_are_not() -> None:
    age = LatencyEstimate()
    assert age.expected_ns() == 0
    age.add(9000)
    assert age.expected_ns() == 9000, "cold as it was: nothing else is known"
    age.add(50)
    age.add(30)
    assert age.expected_ns() == 50, "of a few the slowest counts"
    for _ in range(10):
        age.add(20)
    age.add(900)
    assert age.expected_ns() == 50
    age.add(800)
    assert age.expected_ns() == 800
    for _ in range(16):
        age.add(20)
    assert age.expected_ns() == 20, "the network has recovered"


def playable(sequence: int, actions: np.ndarray) -> PlayableChunk:
    return PlayableChunk("e", sequence, f"c{sequence}", actions.astype(np.float32), len(actions), 0)


def observed(period: int) -> StateHistory:
    """States in which stamp 0, that of every chunk here, was received in this period."""
    states = StateHistory()
    states.push(Measured(0, period * DT_NS, np.zeros(1)))
    return states


def play(buffer: ChunkBuffer, periods: range, captured: int = 0) -> list[tuple[float, bool]]:
    steps = [buffer.next(period * DT_NS, observed(captured)) for period in periods]
    return [(float(step.action[0]), step.blended) for step in steps if isinstance(step, Play)]


def line(start: float, count: int = 12) -> np.ndarray:
    return (start + np.arange(count, dtype=np.float32))[:, None]


def test_a_chunk_that_tears_off_is_faded_in() -> None:
    buffer = ChunkBuffer(DT_NS, 10**9)
    buffer.accept(playable(1, line(0)))
    assert play(buffer, range(4)) == [(0, False), (1, False), (2, False), (3, False)]
    buffer.accept(playable(2, line(102)))  # answers the state of period 2: index i belongs to period 2 + i
    played = play(buffer, range(4, 10), captured=2)
    share = np.arange(1, FADE_STEPS + 1) / (FADE_STEPS + 1)
    assert [value for value, _ in played[:FADE_STEPS]] == pytest.approx((np.arange(4, 8) + 100 * share).tolist())
    assert [blended for _, blended in played] == [True] * FADE_STEPS + [False] * 2
    assert [value for value, _ in played[FADE_STEPS:]] == [108, 109]


def test_a_chunk_that_continues_is_played_as_it_is() -> None:
    buffer = ChunkBuffer(DT_NS, 10**9)
    buffer.accept(playable(1, line(0)))
    play(buffer, range(4))
    going_on = line(2)
    going_on[2:] += 0.5
    buffer.accept(playable(2, going_on))
    assert play(buffer, range(4, 7), captured=2) == [(4.5, False), (5.5, False), (6.5, False)]


def test_what_is_left_bounds_the_fading_and_a_stop_ends_it() -> None:
    buffer = ChunkBuffer(DT_NS, 10**9)
    buffer.accept(playable(1, line(0, 6)))
    play(buffer, range(4))
    buffer.accept(playable(2, line(102, 5)))
    assert [blended for _, blended in play(buffer, range(4, 7), captured=2)] == [True, True, False]
    buffer.accept(playable(3, line(200)))
    play(buffer, range(7, 9), captured=7)
    buffer.flush(7 * DT_NS)
    buffer.accept(playable(4, line(300)))
    assert play(buffer, range(9, 10), captured=9) == [(300, False)]


def test_in_lock_step_nothing_is_faded() -> None:
    buffer = ChunkBuffer(DT_NS)
    buffer.accept(playable(1, line(0)))
    play(buffer, range(2))
    buffer.accept(playable(2, line(100)))
    assert play(buffer, range(2, 4)) == [(100, False), (101, False)]


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(1, 3), st.integers(0, 8), st.booleans()), max_size=40))
def test_whatever_comes_no_action_is_played_twice_and_nothing_goes_back(
    events: list[tuple[int, int, int, bool]],
) -> None:
    """Lost, late, repeated and reordered chunks; index i of a chunk belongs to the period of its capture + i."""
    buffer, played, now = ChunkBuffer(DT_NS, 10**9), [], 10
    captured_of: dict[int, int] = {}
    for sequence, pause, age, lost in events:
        now += pause
        if not lost:
            captured_of.setdefault(sequence, now - age)
            buffer.accept(playable(sequence, line(0, 9)))
        step = buffer.next(now * DT_NS, observed(captured_of.get(sequence, 0)))
        if isinstance(step, Play):
            played.append((step.chunk.sequence, step.index))
            assert step.index <= now - captured_of[step.chunk.sequence], "nothing is played ahead of its time"
    assert played == sorted(set(played))


def test_an_arm_reports_what_was_blended(profile: Profile) -> None:
    arm = DrivenArm(real_profile(profile))
    arm.run()
    arm.executor.begin("e")
    arm.chunk(arm.sweep(20, 0.1))
    arm.run(6)
    arm.chunk(arm.sweep(20, 0.05))
    arm.run(8)
    torn = [one.index for one in arm.outcomes if one.chunk_id == "c2" and one.alterations & Alteration.BLENDED]
    assert torn == list(range(1, 1 + FADE_STEPS)), "one was played since the state that it answers"
    assert arm.violations() == {}


def test_a_chunk_of_the_policy_is_not_changed_by_the_fading() -> None:
    """What the server logged under this chunk id stays as it is in the sender's hands."""
    actions = line(102).astype(np.float32)
    chunk = replace(playable(2, actions), actions=actions)
    buffer = ChunkBuffer(DT_NS, 10**9)
    buffer.accept(playable(1, line(0)))
    play(buffer, range(4))
    buffer.accept(chunk)
    play(buffer, range(4, 6), captured=2)
    np.testing.assert_array_equal(actions, line(102))
