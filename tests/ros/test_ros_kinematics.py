"""The Panda's kinematics from the profile's table, against finite differences, scipy and a known pose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pirl_ros.control.kinematics import Chain, transform
from pirl_ros.control.rotations import vector
from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import Origin

READY = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4])


@pytest.fixture(scope="module")
def chain(profile: Profile) -> Chain:
    return Chain.from_table(profile.kinematics)


def limits(profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    joints = profile.arm.joints
    return np.array([joint.low for joint in joints]), np.array([joint.high for joint in joints])


def draw_joints(profile: Profile, seed: int, count: int) -> np.ndarray:
    low, high = limits(profile)
    return np.random.default_rng(seed).uniform(low + 0.2, high - 0.2, (count, len(low)))


def test_stretched_out_upwards(chain: Chain) -> None:
    """All angles zero: heights add up, and only the 88 mm offset of link 7 leads away from the axis (data sheet)."""
    position, rotation = chain.forward(np.zeros(7))
    np.testing.assert_allclose(position, [0.088, 0.0, 0.333 + 0.316 + 0.384 - 0.2104], atol=1e-9)
    np.testing.assert_allclose(rotation[:, 2], [0, 0, -1], atol=1e-9)


def test_transform_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    for rpy in rng.uniform(-3, 3, (20, 3)):
        expected = Rotation.from_euler("xyz", rpy).as_matrix()
        np.testing.assert_allclose(transform(Origin((0, 0, 0), tuple(rpy)))[:3, :3], expected, atol=1e-12)


def test_rotation_vector_agrees_with_scipy() -> None:
    for turn in np.random.default_rng(2).uniform(-1.7, 1.7, (50, 3)):
        np.testing.assert_allclose(vector(Rotation.from_rotvec(turn).as_matrix()), turn, atol=1e-9)


def test_jacobian_agrees_with_finite_differences(chain: Chain, profile: Profile) -> None:
    step = 1e-6
    for joints in draw_joints(profile, 3, 20):
        jacobian, position, rotation = chain.jacobian(joints)
        np.testing.assert_array_equal(position, chain.forward(joints)[0])
        for index in range(7):
            nudged = joints.copy()
            nudged[index] += step
            moved, turned = chain.forward(nudged)
            np.testing.assert_allclose((moved - position) / step, jacobian[:3, index], atol=1e-5)
            np.testing.assert_allclose(vector(turned @ rotation.T) / step, jacobian[3:, index], atol=1e-5)


def test_inverse_of_forward_reaches_the_same_pose(chain: Chain, profile: Profile) -> None:
    low, high = limits(profile)
    rng, solved = np.random.default_rng(4), 0
    for joints in draw_joints(profile, 4, 100):
        position, rotation = chain.forward(joints)
        start = np.clip(joints + rng.uniform(-0.2, 0.2, 7), low, high)
        found = chain.inverse(position, rotation, start, low, high)
        if found is None:
            continue
        solved += 1
        assert (found >= low).all()
        assert (found <= high).all()
        reached, turned = chain.forward(found)
        np.testing.assert_allclose(reached, position, atol=1e-4)
        np.testing.assert_allclose(turned, rotation, atol=1e-3)
    assert solved >= 95


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.floats(-0.1, 0.1)] * 3))
def test_any_single_action_is_solved_from_the_ready_pose(
    chain: Chain, profile: Profile, delta: tuple[float, float, float]
) -> None:
    position, rotation = chain.forward(READY)
    found = chain.inverse(position + np.array(delta), rotation, READY, *limits(profile))
    assert found is not None
    np.testing.assert_allclose(chain.forward(found)[0], position + np.array(delta), atol=1e-4)


def test_out_of_reach_is_said(chain: Chain, profile: Profile) -> None:
    position, rotation = chain.forward(READY)
    assert chain.inverse(position + np.array([2.0, 0, 0]), rotation, READY, *limits(profile)) is None
