"""Messages to numpy and back: duck-typed messages, every encoding against pixels set one by one."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pirl_ros.sensing import sensor_messages
from pirl_ros.sensing.sensor_messages import (
    compressed_to_rgb,
    fill_image,
    fill_pose,
    image_to_rgb,
    joints_by_name,
    pose_to_vector,
    stamp_to_ns,
    wrench_to_vector,
)

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


@pytest.mark.parametrize(
    ("encoding", "little"), [("rgb16", "a001 a002 a003"), ("bgr16", "a003 a002 a001"), ("mono16", "a001")]
)
def test_sixteen_bits_keep_the_upper_eight_in_either_byte_order(encoding: str, little: str) -> None:
    data = bytes.fromhex(little)
    swapped = b"".join(data[index : index + 2][::-1] for index in range(0, len(data), 2))
    expected = [1, 1, 1] if encoding == "mono16" else [1, 2, 3]
    for big, stored in ((0, data), (1, swapped)):
        message = image_message(height=1, width=1, encoding=encoding, step=len(data), data=stored, is_bigendian=big)
        assert image_to_rgb(message).tolist() == [[expected]]


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("yuv422", "UYVY"),
        ("uyvy", "UYVY"),
        ("yuv422_yuy2", "YUY2"),
        ("yuyv", "YUY2"),
        ("nv12", "NV12"),
        ("nv21", "NV21"),
    ],
)
def test_yuv_is_what_opencv_makes_of_it(encoding: str, code: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="the oracle is OpenCV")
    rng = np.random.default_rng(0)
    planar = encoding.startswith("nv")
    height, width, padding = 16, 24, 5
    rows, used = (height * 3 // 2, width) if planar else (height, width * 2)
    stored = rng.integers(0, 256, (rows, used + padding), np.uint8)
    message = image_message(
        height=height, width=width, encoding=encoding, step=used + padding, data=array("B", stored.tobytes())
    )
    plain = np.ascontiguousarray(stored[:, :used])
    expected = cv2.cvtColor(plain if planar else plain.reshape(height, width, 2), getattr(cv2, f"COLOR_YUV2RGB_{code}"))
    # Fixed point of another width: at most the last digit differs.
    assert np.abs(image_to_rgb(message).astype(int) - expected).max() <= 1


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
    with pytest.raises(ValueError, match="debayer"):
        image_to_rgb(image_message(height=2, width=2, encoding="bayer_rggb8", step=2, data=b"1234"))
    with pytest.raises(ValueError, match="even size"):
        image_to_rgb(image_message(height=1, width=1, encoding="yuyv", step=2, data=b"12"))
    with pytest.raises(ValueError, match="not supported for output"):
        fill_image(image_message(), np.zeros((1, 1, 3), np.uint8), "mono8")
    with pytest.raises(ValueError, match="too few"):
        image_to_rgb(image_message(height=2, width=1, encoding="rgb8", step=3, data=b"123"))


@pytest.mark.parametrize(("suffix", "largest"), [("png", 0), ("jpeg", 12)])
def test_compressed_pictures_keep_their_colours(suffix: str, largest: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="compressed images need OpenCV")
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :, 0], image[:, :, 2] = 200, np.arange(16)[:, None] * 4
    data = cv2.imencode(f".{suffix}", image[:, :, ::-1])[1].tobytes()
    message = SimpleNamespace(format=f"rgb8; {suffix} compressed bgr8", data=array("B", data))
    assert np.abs(compressed_to_rgb(message).astype(int) - image).max() <= largest


@pytest.mark.parametrize(
    ("format_", "data", "words"),
    [
        ("jpeg", b"", "0 bytes"),
        ("jpeg", b"no picture", "cannot be decoded"),
        ("16UC1; compressedDepth png", b"123", "depth map"),
    ],
)
def test_what_is_no_picture_is_refused(format_: str, data: bytes, words: str) -> None:
    pytest.importorskip("cv2", reason="compressed images need OpenCV")
    with pytest.raises(ValueError, match=words):
        compressed_to_rgb(SimpleNamespace(format=format_, data=data))


def test_without_opencv_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(sensor_messages.importlib, "import_module", missing)
    with pytest.raises(ValueError, match="python3-opencv"):
        compressed_to_rgb(SimpleNamespace(format="jpeg", data=b"1"))


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
        (SimpleNamespace(name=["a", "b"], position=[1.0], velocity=[0.0, 0.0]), "one position per name"),
        (SimpleNamespace(name=["a", "b"], position=[1.0, float("nan")], velocity=[0.0, 0.0]), "position of b"),
        (SimpleNamespace(name=["a", "b"], position=[1.0, 2.0], velocity=[float("inf"), 0.0]), "velocity of a"),
    ],
)
def test_an_incomplete_joint_state_is_never_filled_up(message: SimpleNamespace, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        joints_by_name(message, ["a", "b"])


def test_velocities_are_not_asked_for_when_the_profile_has_none() -> None:
    message = SimpleNamespace(name=["a", "b"], position=[1.0, 2.0], velocity=[])
    positions, velocities = joints_by_name(message, ["b"], velocities=False)
    assert (positions.tolist(), velocities.tolist()) == ([2.0], [])


def test_wrench_is_force_then_torque() -> None:
    wrench = SimpleNamespace(force=SimpleNamespace(x=1, y=2, z=3), torque=SimpleNamespace(x=4, y=5, z=6))
    assert wrench_to_vector(SimpleNamespace(wrench=wrench)).tolist() == [1, 2, 3, 4, 5, 6]
    wrench.torque.y = float("nan")
    with pytest.raises(ValueError, match="wrench is not finite"):
        wrench_to_vector(SimpleNamespace(wrench=wrench))


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
