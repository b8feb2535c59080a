"""The governor: whatever goes in, what comes out keeps every limit, and the arm gets where it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from driven_arm import READY, real_limits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pirl_contract import Alteration
from pirl_ros.control.governor import Governor, stop_from
from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.control.workspace import Workspace
from pirl_ros.profile.profile import Profile

FRESH = (0.0, 0.0)
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
# Ordinary ones as often as any: else nearly every input would be refused for its age and prove nothing.
ANY_AGE = st.floats(0, 0.4) | ANY_FLOAT
ANY_TARGET = hnp.arrays(np.float64, 7, elements=st.floats(-4, 4)) | hnp.arrays(np.float64, 7, elements=ANY_FLOAT)


@pytest.fixture(scope="module")
def chain(profile: Profile) -> Chain:
    return Chain.from_table(profile.kinematics)


@st.composite
def arms(draw: st.DrawFn, profile: Profile, chain: Chain) -> Limits:
    """Any limits, and often a tight box around the tool."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    limits = real_limits(
        profile,
        velocity=rng.uniform(0.3, 3.0, 7),
        acceleration=10 ** rng.uniform(-0.5, 2.5, 7),
        jerk=10 ** rng.uniform(0.3, 4.5, 7),
        period_s=draw(st.sampled_from([0.01, 0.02, 0.05])),
    )
    if draw(st.booleans()):
        tool = chain.forward(READY)[0]
        size = rng.uniform(0.02, 0.3, (2, 3))
        limits = replace(limits, workspace_low=tool - size[0], workspace_high=tool + size[1])
    return limits


@pytest.mark.parametrize("skipped", [None, "velocity", "acceleration", "jerk", "workspace"])
def test_the_checker_sees_a_governor_that_skips_a_limit(profile: Profile, chain: Chain, skipped: str | None) -> None:
    """Negative control: the same checker, the same governor with one limit out of its sight."""
    tool = chain.forward(READY)[0]
    limits = real_limits(profile, velocity=np.full(7, 0.5), workspace_low=tool - 0.3, workspace_high=tool + 0.3)
    changes: dict[str, object] = {}
    if skipped == "workspace":
        changes = {"workspace_low": tool - 9.0, "workspace_high": tool + 9.0}
    elif skipped is not None:
        changes = {skipped: getattr(limits, skipped) * 100}
    governor = Governor(replace(limits, **changes), chain)  # type: ignore[arg-type]
    commands = [READY]
    for target in np.random.default_rng(0).uniform(-3, 3, (6, 7)):
        for _ in range(25):
            command, _ = governor.command(target, commands[-1], *FRESH)
            assert command is not None
            commands.append(command)
    assert list(violations(np.array(commands), limits, chain)) == ([] if skipped is None else [skipped])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_input_makes_it_break_a_limit(profile: Profile, chain: Chain, data: st.DataObject) -> None:
    limits = data.draw(arms(profile, chain))
    governor, measured = Governor(limits, chain), READY
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    commands: list[np.ndarray] = []
    for target, ages in data.draw(st.lists(st.tuples(ANY_TARGET, st.tuples(ANY_AGE, ANY_AGE)), min_size=1, max_size=8)):
        for _ in range(data.draw(st.integers(1, 25))):
            command, bits = governor.command(target, measured, *ages)
            if command is None:
                continue
            if not commands:
                commands.append(measured)
            if bits == Alteration.NONE:
                np.testing.assert_array_equal(command, target)
            commands.append(command)
            lag = command + rng.uniform(0, 1) * (commands[-2] - command) + rng.normal(0, 0.01, 7)
            measured = np.clip(lag, limits.low, limits.high)
    while not governor.at_rest:
        stop = governor.brake()
        assert stop is not None
        commands.append(stop)
        assert len(commands) < 20_000, "it never stops"
    if commands:
        assert violations(np.array(commands), limits, chain) == {}


@settings(deadline=None, max_examples=10)
@given(st.data())
def test_it_gets_to_any_goal_and_stays(profile: Profile, chain: Chain, data: st.DataObject) -> None:
    limits = replace(data.draw(arms(profile, chain)), workspace_low=np.full(3, -9.0), workspace_high=np.full(3, 9.0))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    governor, commands = Governor(limits, chain), [READY]
    # Reached after a detour, so from any motion.
    for goal, periods in ((rng.uniform(-1, 1, 7) + READY, 20), (rng.uniform(limits.low, limits.high), 6000)):
        for _ in range(periods):
            command, bits = governor.command(goal, commands[-1], *FRESH)
            assert command is not None
            commands.append(command)
            if not bits and governor.at_rest:
                break
    np.testing.assert_array_equal(commands[-1], goal)
    assert violations(np.array(commands), limits, chain) == {}


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(0.2, 1.0), min_size=7, max_size=7), st.floats(0.2, 1.0))
def test_a_target_that_keeps_the_limits_is_played_exactly(
    profile: Profile, chain: Chain, ways: list[float], hurry: float
) -> None:
    limits = real_limits(profile)
    governor, measured = Governor(limits, chain), READY
    # A minimum-jerk way: speed 1.875, acceleration 5.77, jerk 60, of way / duration, / duration^2, / duration^3.
    way = np.array(ways) * np.array([1.0, 0.5, -1.0, 0.5, 1.0, 0.5, -1.0])
    needed = [np.abs(way) * 1.875 / limits.velocity, np.sqrt(np.abs(way) * 5.78 / limits.acceleration)]
    duration = 1.05 / hurry * max(each.max() for each in (*needed, np.cbrt(np.abs(way) * 60 / limits.jerk)))
    for t in np.arange(0.0, duration + 0.1, limits.period_s):
        s = min(t / duration, 1.0)
        target = READY + way * (10 * s**3 - 15 * s**4 + 6 * s**5)
        command, bits = governor.command(target, measured, *FRESH)
        assert command is not None
        np.testing.assert_array_equal(command, target)
        assert bits == Alteration.NONE
        measured = command


def test_limits_too_wide_to_bind_change_nothing(profile: Profile, chain: Chain) -> None:
    """The simulated Panda: any target within reach of one period comes out bit for bit."""
    limits, rng = Limits.from_profile(profile), np.random.default_rng(1)
    governor, measured = Governor(limits, chain), READY
    for _ in range(500):
        target = np.clip(measured + rng.uniform(-0.4, 0.4, 7), limits.low, limits.high)
        command, bits = governor.command(target, measured, *FRESH)
        assert bits == Alteration.NONE
        assert command is not None
        np.testing.assert_array_equal(command, target)
        assert governor.at_rest, "it could stop at once: nothing has to be sent to brake"
        measured = command + rng.uniform(0, 0.5) * (measured - command)


def test_the_way_to_a_goal_is_straight_quick_and_does_not_pass_it(profile: Profile, chain: Chain) -> None:
    limits = real_limits(profile)
    way = np.array([0.8, 0.3, -0.5, -0.4, 0.2, 0.1, 1.0])
    governor, commands = Governor(limits, chain), [READY]
    for _ in range(60):
        command, _ = governor.command(READY + way, commands[-1], *FRESH)
        assert command is not None
        commands.append(command)
    path = np.array(commands) - READY
    along = np.outer(path @ way / (way @ way), way)
    assert np.abs(path - along).max() < 0.01
    assert ((path - way) * np.sign(way)).max() < 1e-3
    arrived = int(np.argmax(np.abs(path - way).max(axis=1) < 1e-9)) * limits.period_s
    # Bang-bang in acceleration would take 2 sqrt(way / acceleration) for the slowest joint.
    assert 0 < arrived < 1.25 * 2 * np.sqrt(np.max(np.abs(way) / limits.acceleration))


def test_a_joint_limit_is_approached_and_not_passed(profile: Profile, chain: Chain) -> None:
    limits = real_limits(profile)
    governor, commands = Governor(limits, chain), [READY]
    beyond = READY + np.array([5.0, 0, 0, 0, 0, 0, 0])
    for _ in range(400):
        command, bits = governor.command(beyond, commands[-1], *FRESH)
        assert command is not None
        commands.append(command)
    assert bits & Alteration.LIMIT
    assert commands[-1][0] == pytest.approx(limits.high[0], abs=1e-9)
    assert violations(np.array(commands), limits, chain) == {}


def test_a_wall_is_approached_and_not_passed(profile: Profile, chain: Chain) -> None:
    tool = chain.forward(READY)[0]
    limits = real_limits(profile, workspace_low=tool - 0.2, workspace_high=tool + 0.04)
    goal = chain.inverse(tool + np.array([0.08, 0, 0]), chain.forward(READY)[1], READY, limits.low, limits.high)
    assert goal is not None
    governor, commands = Governor(limits, chain), [READY]
    for _ in range(200):
        command, bits = governor.command(goal, commands[-1], *FRESH)
        assert command is not None
        commands.append(command)
    assert bits & Alteration.WORKSPACE
    assert 0.035 < chain.forward(commands[-1])[0][0] - tool[0] <= 0.04
    assert violations(np.array(commands), limits, chain) == {}


@given(st.data())
def test_a_stop_ends_at_rest_within_its_limits(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    acceleration, jerk = 10 ** rng.uniform(-4, -1, 7), 10 ** rng.uniform(-5, -1, 7)
    v, a = rng.uniform(-0.05, 0.05, 7), rng.uniform(-1, 1, 7) * acceleration
    positions, kept = stop_from(READY, v, a, acceleration, jerk)
    path = np.vstack([READY - v - (v - a), READY - v, READY, positions, positions[-1:], positions[-1:]])
    changes = np.diff(path, 2, axis=0)
    assert kept.mean() > 0.5
    assert (np.abs(changes[1:]) <= acceleration * (1 + 1e-6) + 1e-12)[:, kept].all()
    assert (np.abs(np.diff(changes, axis=0)) <= jerk * (1 + 1e-6) + 1e-12)[:, kept].all()


def test_the_tool_centre_is_where_the_chain_says(profile: Profile, chain: Chain) -> None:
    limits = Limits.from_profile(profile)
    workspace = Workspace(limits.workspace_low, limits.workspace_high, chain)
    for joints in np.random.default_rng(3).uniform(limits.low, limits.high, (50, 7)):
        np.testing.assert_allclose(workspace.tool(joints), chain.forward(joints)[0], atol=1e-12)
