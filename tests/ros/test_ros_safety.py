"""The governor: whatever goes in, what comes out keeps every limit."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pirl_contract import Alteration
from pirl_ros.profile import Profile
from pirl_ros.safety import Governor, Limits

LIMITS = Limits(
    low=np.array([-1.0, -2.0]),
    high=np.array([1.0, 0.5]),
    max_step=np.array([0.1, 0.2]),
    max_jump=1.0,
    max_chunk_age_s=1.0,
    max_observation_age_s=0.5,
)
INSIDE = np.array([0.0, -0.5])
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
# Ordinary ones as often as any: else nearly every input would be refused for its age and prove nothing.
ANY_AGE = st.floats(0, 0.4) | ANY_FLOAT
ANY_VECTOR = hnp.arrays(np.float64, 2, elements=st.floats(-3, 3) | ANY_FLOAT)
FRESH = (0.0, 0.0)


def keeps_limits(commands: list[np.ndarray]) -> bool:
    inside = all(np.isfinite(c).all() and (c >= LIMITS.low).all() and (c <= LIMITS.high).all() for c in commands)
    steps = [np.abs(after - before) for before, after in itertools.pairwise(commands)]
    return inside and all((step <= LIMITS.max_step + 1e-9).all() for step in steps)


@settings(max_examples=500)
@given(st.lists(st.tuples(ANY_VECTOR, ANY_VECTOR, ANY_AGE, ANY_AGE), max_size=12))
def test_no_input_makes_it_break_a_limit(
    inputs: list[tuple[np.ndarray, np.ndarray, float, float]],
) -> None:
    governor = Governor(LIMITS)
    answers = [governor.command(*each)[0] for each in inputs]
    commands = [answer for answer in answers if answer is not None]
    assert keeps_limits(commands)
    if commands:
        first = next(i for i, answer in enumerate(answers) if answer is not None)
        start = np.clip(inputs[first][1], LIMITS.low, LIMITS.high)
        assert keeps_limits([start, *commands])


@settings(max_examples=300)
@given(hnp.arrays(np.float64, (8, 2), elements=st.floats(-10, 10)), st.floats(0, 1))
def test_ordinary_targets_keep_them_too_and_altered_ones_say_so(targets: np.ndarray, lag: float) -> None:
    governor, measured, commands = Governor(LIMITS), INSIDE, [INSIDE]
    for target in targets:
        command, bits = governor.command(target, measured, *FRESH)
        assert command is not None
        assert bool(bits) == (not np.array_equal(command, target))
        commands.append(command)
        measured = measured + lag * (command - measured)
    assert keeps_limits(commands)


def test_the_oracle_sees_a_governor_that_does_nothing() -> None:
    assert not keeps_limits([INSIDE, INSIDE + 0.3])
    assert not keeps_limits([np.array([2.0, 0.0])])


def test_an_ordinary_target_passes_unaltered() -> None:
    command, bits = Governor(LIMITS).command(INSIDE + 0.05, INSIDE, *FRESH)
    assert bits == Alteration.NONE
    np.testing.assert_array_equal(command, INSIDE + 0.05)


def test_too_fast_is_slowed_on_the_same_line() -> None:
    command, bits = Governor(LIMITS).command(INSIDE + np.array([0.4, 0.2]), INSIDE, *FRESH)
    assert bits == Alteration.LIMIT
    np.testing.assert_allclose(command, INSIDE + np.array([0.1, 0.05]))


def test_a_jump_away_from_the_measured_arm_is_flagged() -> None:
    _, bits = Governor(LIMITS).command(INSIDE + np.array([0.0, -1.2]), INSIDE, *FRESH)
    assert bits & Alteration.JUMP


@pytest.mark.parametrize(
    ("target", "ages", "bit"),
    [
        (np.array([np.nan, 0.0]), FRESH, Alteration.NOT_FINITE),
        (np.array([0.0, np.inf]), FRESH, Alteration.NOT_FINITE),
        (INSIDE, (1.1, 0.0), Alteration.STALE),
        (INSIDE, (0.0, 0.6), Alteration.STALE),
        (INSIDE, (-0.1, 0.0), Alteration.STALE),
        (INSIDE, (float("nan"), 0.0), Alteration.STALE),
    ],
)
def test_refused_targets_hold_the_last_command(target: np.ndarray, ages: tuple[float, float], bit: Alteration) -> None:
    governor = Governor(LIMITS)
    assert governor.command(target, INSIDE, *ages) == (None, bit), "nothing was commanded before: nothing may be now"
    last, _ = governor.command(INSIDE + 0.01, INSIDE, *FRESH)
    held, bits = governor.command(target, INSIDE + 0.005, *ages)
    assert bits == bit
    np.testing.assert_array_equal(held, last)


def test_release_starts_from_the_measured_arm() -> None:
    governor = Governor(LIMITS)
    governor.command(INSIDE, INSIDE, *FRESH)
    governor.release()
    far = np.array([0.9, 0.4])
    command, bits = governor.command(far, far, *FRESH)
    assert bits == Alteration.NONE
    np.testing.assert_array_equal(command, far)


@pytest.mark.parametrize(
    "change",
    [
        {"low": np.array([])},
        {"high": np.array([1.0, np.inf])},
        {"low": np.array([1.0, -2.0])},
        {"max_step": np.array([0.1])},
        {"max_step": np.array([0.1, 0.0])},
        {"max_jump": 0.0},
        {"max_chunk_age_s": float("nan")},
    ],
)
def test_it_refuses_to_exist_without_limits(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the governor needs"):
        Governor(replace(LIMITS, **change))  # type: ignore[arg-type]


def test_limits_come_from_the_profile(profile: Profile) -> None:
    limits = Limits.from_profile(profile)
    assert limits.low[3] == -3.0718
    np.testing.assert_allclose(limits.max_step[0], 2.175 * profile.safety.speed_scale / 20)
    Governor(limits)


def test_a_target_just_outside_stops_at_the_limit_and_says_so() -> None:
    near = np.array([0.95, 0.0])
    command, bits = Governor(LIMITS).command(np.array([1.02, 0.0]), near, *FRESH)
    assert bits == Alteration.LIMIT
    np.testing.assert_array_equal(command, [1.0, 0.0])
