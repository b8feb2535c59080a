"""The four ways to write a rotation, against SciPy, at half a turn, straight up, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from pirl_ros.control import rotations

REPRESENTATIONS = ("axis_angle", "euler_xyz", "quaternion", "rotation_6d")
QUATERNIONS = hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.2)


def oracle(values: np.ndarray, representation: str) -> np.ndarray:
    """The matrix by SciPy's reading of the same numbers."""
    if representation == "axis_angle":
        return Rotation.from_rotvec(values).as_matrix()
    if representation == "euler_xyz":
        return Rotation.from_euler("xyz", values).as_matrix()  # small letters: about the fixed axes
    return Rotation.from_quat(np.roll(values, -1)).as_matrix()


@given(QUATERNIONS)
def test_any_rotation_is_written_and_read_again(q: np.ndarray) -> None:
    matrix = Rotation.from_quat(q).as_matrix()
    for representation in REPRESENTATIONS:
        values = rotations.values_of(matrix, representation)
        again = rotations.matrix(values, representation)
        assert again is not None
        np.testing.assert_allclose(again, matrix, atol=1e-7)
        if representation != "rotation_6d":
            np.testing.assert_allclose(oracle(values, representation), matrix, atol=1e-7)


@given(hnp.arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_three_numbers_mean_what_scipy_says(values: np.ndarray) -> None:
    for representation in ("axis_angle", "euler_xyz"):
        found = rotations.matrix(values, representation)
        assert found is not None
        np.testing.assert_allclose(found, oracle(values, representation), atol=1e-12)


def test_six_numbers_are_the_first_two_columns_made_orthonormal() -> None:
    matrix = rotations.matrix(np.array([2.0, 0, 0, 0.5, 3.0, 0]), "rotation_6d")
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-12)
    turned = Rotation.from_rotvec([0.3, -0.4, 0.5]).as_matrix()
    np.testing.assert_allclose(rotations.values_of(turned, "rotation_6d"), turned[:, :2].T.ravel())


@pytest.mark.parametrize(
    ("representation", "values"),
    [("quaternion", [0.0] * 4), ("rotation_6d", [0.0] * 6), ("rotation_6d", [1.0, 0, 0, 1.0, 0, 0])],
)
def test_what_is_no_rotation_is_none(representation: str, values: list[float]) -> None:
    assert rotations.matrix(np.array(values), representation) is None


@pytest.mark.parametrize("axis", [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.6, 0.8, 0], [-0.48, 0.6, 0.64]])
def test_half_a_turn_is_no_zero(axis: list[float]) -> None:
    """The antisymmetric part of the matrix vanishes there: a reader that takes only that sees no rotation at all."""
    for angle in (np.pi, np.pi - 1e-9, np.pi - 1e-5):
        found = rotations.vector(Rotation.from_rotvec(angle * np.array(axis)).as_matrix())
        assert np.linalg.norm(found) == pytest.approx(angle, abs=1e-8)
        assert abs(found @ np.array(axis)) == pytest.approx(angle, abs=1e-8)


def test_of_two_ways_to_write_it_the_nearer_one_is_taken() -> None:
    matrix = Rotation.from_rotvec([np.pi + 0.1, 0, 0]).as_matrix()
    assert rotations.values_of(matrix, "axis_angle")[0] == pytest.approx(0.1 - np.pi)
    near = rotations.values_of(matrix, "axis_angle", near=np.array([3.1, 0, 0]))
    np.testing.assert_allclose(near, [np.pi + 0.1, 0, 0], atol=1e-9)
    q = rotations.values_of(matrix, "quaternion", near=np.array([0.0, -1, 0, 0]))
    assert q[1] < 0
    np.testing.assert_allclose(rotations.matrix(q, "quaternion"), matrix, atol=1e-12)


@given(QUATERNIONS, QUATERNIONS, st.floats(0, 1), st.floats(0.01, 3))
def test_the_way_between_two_is_the_shortest(a: np.ndarray, b: np.ndarray, share: float, largest: float) -> None:
    start, goal = Rotation.from_quat(a), Rotation.from_quat(b)
    whole = (goal * start.inv()).magnitude()
    between = Rotation.from_matrix(rotations.between(start.as_matrix(), goal.as_matrix(), share))
    assert (between * start.inv()).magnitude() == pytest.approx(share * whole, abs=1e-6)
    short = Rotation.from_matrix(rotations.shortened(start.as_matrix(), goal.as_matrix(), largest))
    assert (short * start.inv()).magnitude() == pytest.approx(min(whole, largest), abs=1e-6)
    assert (goal * short.inv()).magnitude() == pytest.approx(max(whole - largest, 0.0), abs=1e-6)
