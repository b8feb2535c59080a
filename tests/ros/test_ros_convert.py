"""Messages to numpy and back: duck-typed messages, every encoding against pixels set one by one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pirl_ros.convert import fill_image, fill_pose, image_to_rgb, joints_by_name, pose_to_vector, stamp_to_ns

IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))
PIXEL = {"rgb8": b"\x01\x02\x03", "bgr8": b"\x03\x02\x01", "rgba8": b"\x01\x02\x03\xff", "bgra8": b"\x03\x02\x01\xff"}


def image_message(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(**{"is_bigendian": 0, **fields})


@pytest.mark.parametrize("encoding", PIXEL)
def test_one_pixel_of_each_encoding(encoding: str) -> None:
    data = PIXEL[encoding]
    message = image_message(height=1, width=1, encoding=encoding, step=len(data), data=data)
    assert image_to_rgb(message).tolist() == [[[1, 2, 3]]]


def test_mono_becomes_grey() -> None:
    message = image_message(height=1, width=2, encoding="mono8", step=2, data=b"\x05\x09")
    assert image_to_rgb(message).tolist() == [[[5, 5, 5], [9, 9, 9]]]


def test_padding_at_the_end_of_rows_is_skipped() -> None:
    data = b"\x01\x02\x03\xee\xee" + b"\x04\x05\x06\xee\xee"
    message = image_message(height=2, width=1, encoding="rgb8", step=5, data=data)
    assert image_to_rgb(message).tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


@given(image=IMAGES, encoding=st.sampled_from(sorted(PIXEL)))
def test_there_and_back(image: np.ndarray, encoding: str) -> None:
    message = image_message()
    fill_image(message, image, encoding)
    assert isinstance(message.data, bytes), "anything else makes rclpy copy it element by element"
    np.testing.assert_array_equal(image_to_rgb(message), image)


def test_unfit_images_are_refused() -> None:
    with pytest.raises(ValueError, match="16UC1"):
        image_to_rgb(image_message(height=1, width=1, encoding="16UC1", step=2, data=b"12"))
    with pytest.raises(ValueError, match="too few"):
        image_to_rgb(image_message(height=2, width=1, encoding="rgb8", step=3, data=b"123"))


def test_joints_come_in_the_order_asked_for() -> None:
    message = SimpleNamespace(name=["c", "a", "b"], position=[3.0, 1.0, 2.0], velocity=[0.3, 0.1, 0.2])
    positions, velocities = joints_by_name(message, ["a", "b"])
    assert positions.tolist() == [1.0, 2.0]
    np.testing.assert_allclose(velocities, [0.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (SimpleNamespace(name=["a"], position=[1.0], velocity=[0.0]), "lacks b"),
        (SimpleNamespace(name=["a", "b"], position=[1.0, 2.0], velocity=[]), "one velocity per name"),
        (SimpleNamespace(name=["a", "b"], position=[1.0, float("nan")], velocity=[0.0, 0.0]), "not finite"),
    ],
)
def test_an_incomplete_joint_state_is_never_filled_up(message: SimpleNamespace, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        joints_by_name(message, ["a", "b"])


def test_pose_there_and_back() -> None:
    message = SimpleNamespace(pose=SimpleNamespace(position=SimpleNamespace(), orientation=SimpleNamespace()))
    vector = np.array([1, 2, 3, 0.5, -0.5, 0.5, -0.5], np.float32)
    fill_pose(message, vector)
    assert (message.pose.orientation.w, message.pose.orientation.x) == (0.5, -0.5)
    np.testing.assert_array_equal(pose_to_vector(message), vector)
    fill_pose(message, vector[:3])
    assert pose_to_vector(message).tolist() == [1, 2, 3, 1, 0, 0, 0]


def test_stamp_keeps_every_nanosecond() -> None:
    assert stamp_to_ns(SimpleNamespace(sec=1_700_000_000, nanosec=123_456_789)) == 1_700_000_000_123_456_789
