"""Features of the tabletop: values worked out by hand, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pirl_server.policy.features import (
    CLAMP,
    FEATURES,
    STATE_DIM,
    metaworld_relative,
    proprioception,
    tabletop_relative,
)

TOOL, FINGER, HELD, OFFSET, GOAL, THING, ANGLE, VELOCITY, POSTURE, REST = (
    slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 8), slice(8, 11), slice(11, 14), slice(14, 17), slice(17, 24),
    slice(24, 31), slice(31, 32),
)  # fmt: skip
POSITIONS = (slice(18, 21), slice(25, 28), slice(32, 35))
"""tool, object, goal in the state"""


def state(tool=(0.1, -0.2, 0.3), thing=(0.15, -0.1, 0.02), goal=(0.35, -0.1, 0.0), yaw=0.0, finger=0.04) -> np.ndarray:
    """One state [1, 35]: joints at 0.1 rad, velocities 0.2 rad/s, tool pointing down, object upright."""
    half = yaw / 2
    parts = [
        np.full(7, 0.1), [finger, finger], np.full(7, 0.2), [0.0, 0.0], tool, [0.0, 1.0, 0.0, 0.0], thing,
        [np.cos(half), 0.0, 0.0, np.sin(half)], goal,
    ]  # fmt: skip
    return np.concatenate(parts).astype(np.float32)[None]


def test_values_worked_out_by_hand() -> None:
    found = tabletop_relative(state(yaw=np.pi / 12))[0]
    np.testing.assert_allclose(found[TOOL], [1.0, -2.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(found[FINGER], [1.0], atol=1e-6)
    assert found[HELD] == 0.0
    np.testing.assert_allclose(found[OFFSET], [0.5, 1.0, -2.8], atol=1e-6)
    np.testing.assert_allclose(found[GOAL], [2.0, 0.0, -0.2], atol=1e-6)
    np.testing.assert_allclose(found[THING], [1.5, -1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(found[ANGLE], [0.5, np.sqrt(0.75), 1.0], atol=1e-6)
    np.testing.assert_allclose(found[VELOCITY], 0.1, atol=1e-6)
    rest = [0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4]
    np.testing.assert_allclose(found[POSTURE], 0.1 - np.array(rest), atol=1e-6)
    assert found[REST] == 0.0


def test_held_means_closed_around_the_object() -> None:
    at = (0.1, 0.0, 0.02)
    assert tabletop_relative(state(tool=at, thing=(0.1, 0.0, 0.04), finger=0.02))[0, HELD] == 1.0
    assert tabletop_relative(state(tool=at, thing=(0.1, 0.0, 0.04), finger=0.04))[0, HELD] == 0.0
    assert tabletop_relative(state(tool=at, thing=(0.1, 0.0, 0.05), finger=0.02))[0, HELD] == 0.0


SHIFT = st.tuples(*[st.floats(-0.2, 0.2)] * 3)


@given(SHIFT)
def test_moving_everything_together_changes_the_absolute_entries_only(shift: tuple[float, ...]) -> None:
    here, there = state(), state()
    for place in POSITIONS:
        there[:, place] += np.float32(shift)
    change = (tabletop_relative(there) - tabletop_relative(here))[0]
    np.testing.assert_allclose(change[TOOL], np.array(shift) / 0.1, atol=1e-5)
    np.testing.assert_allclose(change[THING], np.array(shift) / 0.1, atol=1e-5)
    change[TOOL] = change[THING] = 0.0
    np.testing.assert_allclose(change, 0.0, atol=1e-5)


@pytest.mark.parametrize("place", POSITIONS)
def test_moving_one_of_them_changes_a_relative_entry(place: slice) -> None:
    """Negative control of the invariance."""
    moved = state()
    moved[:, place] += np.float32(0.05)
    change = np.abs(tabletop_relative(moved) - tabletop_relative(state()))[0]
    assert max(change[OFFSET].max(), change[GOAL].max()) > 0.4


@given(st.floats(-np.pi, np.pi), st.integers(-4, 4))
def test_a_quarter_turn_of_the_cube_changes_nothing(yaw: float, turns: int) -> None:
    turned = tabletop_relative(state(yaw=yaw + turns * np.pi / 2))
    np.testing.assert_allclose(turned, tabletop_relative(state(yaw=yaw)), atol=1e-5)


def test_an_eighth_turn_or_a_fall_changes_the_angle_entries() -> None:
    """Negative control of the quarter turn."""
    upright = tabletop_relative(state())[0]
    np.testing.assert_allclose(tabletop_relative(state(yaw=np.pi / 4))[0, ANGLE], [-1.0, 0.0, 1.0], atol=1e-5)
    fallen = state()
    x, y, z, w = Rotation.from_euler("x", 90, degrees=True).as_quat()
    fallen[0, 28:32] = [w, x, y, z]
    assert abs(tabletop_relative(fallen)[0, 16] - upright[16]) > 0.9


@given(st.floats(-np.pi, np.pi), st.floats(-1.5, 1.5), st.floats(-np.pi, np.pi))
def test_angles_agree_with_scipy(yaw: float, pitch: float, roll: float) -> None:
    turned = state()
    rotation = Rotation.from_euler("ZYX", [yaw, pitch, roll])
    x, y, z, w = rotation.as_quat()
    turned[0, 28:32] = [w, x, y, z]
    expected = [np.cos(4 * yaw), np.sin(4 * yaw), rotation.as_matrix()[2, 2]]
    np.testing.assert_allclose(tabletop_relative(turned)[0, ANGLE], expected, atol=1e-3)


def test_proprioception_knows_neither_object_nor_goal() -> None:
    here, there = state(), state(thing=(-0.2, 0.1, 0.3), goal=(0.0, 0.0, 0.0), yaw=1.0)
    np.testing.assert_array_equal(proprioception(here), proprioception(there))
    found = proprioception(here)[0]
    np.testing.assert_allclose(found[:4], [1.0, -2.0, 2.0, 1.0], atol=1e-6)
    assert not found[18:].any()


@pytest.mark.parametrize("name", FEATURES)
def test_every_set_has_the_model_s_width_and_stays_in_range(name: str) -> None:
    wild = np.full((3, 35), 1e6, np.float32)
    found = FEATURES[name](wild)
    assert found.shape == (3, STATE_DIM)
    assert found.dtype == np.float32
    assert np.abs(found).max() == CLAMP
    one, many = state(), np.concatenate([state(), state(yaw=1.0), state(finger=0.0)])
    np.testing.assert_array_equal(FEATURES[name](many)[:1], FEATURES[name](one))


def sawyer(second=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    """One state [1, 27] of MetaWorld's Sawyer."""
    places = [np.add((0.1, 0.5, 0.2), shift), np.add((0.2, 0.6, 0.02), shift), np.add((0.0, 0.8, 0.1), shift)]
    parts = [
        places[0], [0.05], places[1], [0.1, 0.2, 0.3, 0.4], second, [1.0, 0.0, 0.0, 0.0], places[2],
        [0.25, 0.0, 0.0], [0.0, 0.5, 0.0],
    ]  # fmt: skip
    return np.concatenate(parts).astype(np.float32)[None]


def test_metaworlds_values_worked_out_by_hand() -> None:
    found = metaworld_relative(sawyer())[0]
    expected = [
        [1, -1, 0.5], [0], [1, 1, -1.8], [-2, 2, 0.8], [-1, 3, -1], [2, 0, -1.3], [0, 0, 0], [0],
        [0.1, 0.2, 0.3, 0.4], [0.5, 0, 0], [0, 1, 0], [0, 0],
    ]  # fmt: skip
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
    np.testing.assert_allclose(metaworld_relative(sawyer(second=(0.2, 0.7, 0.02)))[0, 16:20], [0, 1, 0, 1], atol=1e-5)


def test_metaworlds_relative_entries_do_not_depend_on_where_it_all_is() -> None:
    here, there = metaworld_relative(sawyer())[0], metaworld_relative(sawyer(shift=(0.1, -0.05, 0.2)))[0]
    absolute = [0, 1, 2, 13, 14, 15]
    np.testing.assert_allclose(np.delete(here, absolute), np.delete(there, absolute), atol=1e-4)
    assert np.abs(here - there)[absolute].min() > 0.1
