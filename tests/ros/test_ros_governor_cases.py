"""The governor, case by case: what is refused, where it starts, how it is slowed down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from driven_arm import READY, real_limits

from pirl_contract import Alteration
from pirl_ros.control.governor import Governor
from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.profile.profile import Profile

FRESH = (0.0, 0.0)


@pytest.fixture(scope="module")
def chain(profile: Profile) -> Chain:
    return Chain.from_table(profile.kinematics)


def test_a_jump_away_from_the_measured_arm_is_flagged(profile: Profile, chain: Chain) -> None:
    _, bits = Governor(real_limits(profile), chain).command(READY + 1.3, READY, *FRESH)
    assert bits & Alteration.JUMP


@pytest.mark.parametrize(
    ("target", "ages", "bit"),
    [
        (np.full(7, np.nan), FRESH, Alteration.NOT_FINITE),
        (READY + np.inf, FRESH, Alteration.NOT_FINITE),
        (READY, (3.1, 0.0), Alteration.STALE),
        (READY, (0.0, 0.6), Alteration.STALE),
        (READY, (-0.1, 0.0), Alteration.STALE),
        (READY, (float("nan"), 0.0), Alteration.STALE),
    ],
)
def test_refused_targets_brake_to_rest(
    profile: Profile, chain: Chain, target: np.ndarray, ages: tuple[float, float], bit: Alteration
) -> None:
    limits = real_limits(profile)
    governor = Governor(limits, chain)
    assert governor.command(target, READY, *ages) == (None, bit), "nothing was commanded before: nothing may be now"
    commands = [READY]
    for _ in range(10):
        command, _ = governor.command(READY + 0.5, commands[-1], *FRESH)
        assert command is not None
        commands.append(command)
    for _ in range(60):
        held, bits = governor.command(target, commands[-1], *ages)
        assert bits == bit
        assert held is not None
        commands.append(held)
    assert governor.at_rest
    np.testing.assert_array_equal(commands[-1], commands[-2])
    assert violations(np.array(commands), limits, chain) == {}


def test_release_starts_from_the_measured_arm(profile: Profile, chain: Chain) -> None:
    governor = Governor(real_limits(profile), chain)
    governor.command(READY, READY, *FRESH)
    governor.release()
    far = READY + 0.3
    command, bits = governor.command(far, far, *FRESH)
    assert bits == Alteration.NONE
    np.testing.assert_array_equal(command, far)


@pytest.mark.parametrize("where", [lambda limits: limits.high + 0.5, lambda _: READY + np.eye(7)[1]])
def test_an_arm_outside_its_limits_is_not_commanded(
    profile: Profile, chain: Chain, where: Callable[[Limits], np.ndarray]
) -> None:
    tool = chain.forward(READY)[0]
    limits = real_limits(profile, workspace_low=tool - 0.1, workspace_high=tool + 0.1)
    command, bits = Governor(limits, chain).command(READY, where(limits), *FRESH)
    assert command is None
    assert bits & (Alteration.LIMIT | Alteration.WORKSPACE)


def test_an_arm_that_was_moved_while_held_is_held_where_it_is(profile: Profile, chain: Chain) -> None:
    governor = Governor(real_limits(profile), chain)
    governor.command(READY, READY, *FRESH)
    for period in range(40):
        # A drive that still lags at first, and then keeps a small offset.
        governor.settle(READY + (0.3 if period < 20 else 0.01))
        np.testing.assert_array_equal(governor.brake(), READY)
    governor.settle(READY + 0.3)
    np.testing.assert_array_equal(governor.brake(), READY + 0.3)
    governor.settle(np.full(7, np.nan))
    np.testing.assert_array_equal(governor.brake(), READY + 0.3)


def test_a_part_of_the_speed_is_kept_to(profile: Profile, chain: Chain) -> None:
    limits = real_limits(profile)
    governor, commands = Governor(limits, chain), [READY]
    governor.set_speed_scale(0.2)
    for _ in range(60):
        command, _ = governor.command(READY + 0.5, commands[-1], *FRESH)
        assert command is not None
        commands.append(command)
    slow = replace(limits, velocity=0.2 * limits.velocity)
    assert violations(np.array(commands), slow, chain) == {}
    for bad in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="speed scale"):
            governor.set_speed_scale(bad)


def test_a_copy_goes_its_own_way(profile: Profile, chain: Chain) -> None:
    governor = Governor(real_limits(profile), chain)
    governor.command(READY + 0.2, READY, *FRESH)
    before = governor.position
    other = governor.copy()
    for _ in range(5):
        other.command(READY + 0.2, READY, *FRESH)
    np.testing.assert_array_equal(governor.position, before)
