"""A file that decodes is not yet an image: what is truncated, lost, deep or of another depth is none."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest

from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import CameraTopic
from pirl_ros.sensing.jpeg_steps import lost_at
from pirl_ros.sensing.observation import camera_images
from pirl_ros.sensing.sensor_messages import compressed_to_rgb
from pirl_ros.sensing.synchronizer import Bundle

cv2 = pytest.importorskip("cv2", reason="compressed images need OpenCV")


def smooth(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    few = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray, *flags: int) -> bytes:
    return bytes(cv2.imencode(".jpg", image, flags)[1])


def read(data: bytes, form: str = "jpeg") -> np.ndarray:
    return compressed_to_rgb(Message(data=data, format=form))


WHOLE = jpeg(smooth())
PART = WHOLE[: len(WHOLE) * 6 // 10]
END = b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PART, "truncated: no end mark"),
        (PART + END, "no more data after .* of 100 parts"),
        (PART + WHOLE[len(PART) + 10 :], "lost data: from block 1, 1 on its brightness is off"),
        (WHOLE[:-300] + WHOLE[-200:], "lost data"),
        (WHOLE[:-2], "truncated: no end mark"),
        (WHOLE[:-40] + END, "no more data"),
        (WHOLE[:-2] + b"\x55" * 40 + END, "data left over after 100"),
        (WHOLE[:700] + WHOLE, "mark d8"),
        (WHOLE[:-2] + WHOLE[WHOLE.index(b"\xff\xda") :], "of several scans"),
    ],
)
def test_a_jpeg_that_lost_data_is_no_image(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(data)


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (120, 160)])
@pytest.mark.parametrize("sampling", [0x111111, 0x211111, 0x221111, 0x411111])
@pytest.mark.parametrize("more", [(), (cv2.IMWRITE_JPEG_RST_INTERVAL, 3), (cv2.IMWRITE_JPEG_OPTIMIZE, 1)])
def test_whole_ones_are_read(size: tuple[int, int], sampling: int, more: tuple[int, ...]) -> None:
    """Negative control: every sampling, restart marks, own tables, flat and noisy, grey and of colours."""
    rng = np.random.default_rng(1)
    for image in (smooth(*size), np.full((*size, 3), 128, np.uint8), rng.integers(0, 256, (*size, 3), dtype=np.uint8)):
        for quality in (30, 95):
            data = jpeg(image, cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling, *more)
            expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
            np.testing.assert_array_equal(read(data), expected)
            assert read(jpeg(image[:, :, 0], cv2.IMWRITE_JPEG_QUALITY, quality, *more)).shape == (*size, 3)


def test_what_webcams_add_is_accepted() -> None:
    """Zeros behind the end mark, a few bytes in front of it, and no Huffman tables: those are the standard ones."""
    assert read(WHOLE + bytes(64)).shape == (48, 64, 3)
    assert read(WHOLE[:-2] + b"\x00\x12" + END).shape == (48, 64, 3)
    bare, at = bytearray(WHOLE[:2]), 2
    while WHOLE[at + 1] != 0xDA:
        length = 2 + int.from_bytes(WHOLE[at + 2 : at + 4], "big")
        bare += b"" if WHOLE[at + 1] == 0xC4 else WHOLE[at : at + length]
        at += length
    bare += WHOLE[at:]
    assert len(bare) < len(WHOLE) - 400
    np.testing.assert_array_equal(read(bytes(bare)), read(WHOLE))


def test_a_lost_restart_part_is_seen() -> None:
    data = jpeg(smooth(), cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    second, third = data.index(b"\xff\xd1"), data.index(b"\xff\xd2")
    with pytest.raises(ValueError, match="5 parts between restart marks, not 6"):
        read(data[:second] + data[third:])


def test_most_losses_that_show_are_seen() -> None:
    """Ten bytes out of the middle, at two hundred places; a loss within one block that leaves valid codes is not."""
    data, seen, shown = jpeg(smooth(120, 160), cv2.IMWRITE_JPEG_QUALITY, 80), 0, 0
    whole = read(data).astype(int)
    for at in np.random.default_rng(0).integers(700, len(data) - 40, 200):
        lost = data[:at] + data[at + 10 :]
        found = cv2.imdecode(np.frombuffer(lost, np.uint8), cv2.IMREAD_COLOR)
        if found is None or (np.abs(found[:, :, ::-1] - whole).max(axis=2) > 30).mean() > 0.005:
            shown += 1
            try:
                read(lost)
            except ValueError:
                seen += 1
    assert shown > 80
    assert seen >= 0.9 * shown


def test_an_edge_of_the_scene_is_no_step_of_brightness() -> None:
    image = np.full((96, 128, 3), 90, np.uint8)
    for top, left in ((16, 0), (32, 0), (32, 64), (48, 16)):
        image[top:, left:] = np.minimum(image[top:, left:] + 40, 250)
        assert lost_at(image, (16, 16)) is None
    step = np.full((96, 128, 3), 90, np.uint8)
    step[32:48, 48:] = step[48:] = 100  # from MCU (2, 2) on, its own content aside
    assert lost_at(step, (16, 16)) == (2, 2)


def png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_of_8_bits_is_read(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 5, channels), dtype=np.uint8)
    found = read(png(image), "png")
    np.testing.assert_array_equal(found, np.repeat(image, 3, 2) if channels == 1 else image[:, :, 2::-1])


@pytest.mark.parametrize(
    ("data", "form", "words"),
    [
        (png(np.full((6, 5), 900, np.uint16)), "16UC1; png compressed ", "depth map"),
        (png(np.full((6, 5), 900, np.uint16)), "png", "16 bits, colour type 0"),
        (png(np.full((6, 5, 3), 900, np.uint16)), "rgb16; png compressed bgr16", "16 bits, colour type 2"),
        (png(smooth())[:-12], "png", "damaged"),
        (png(smooth())[:400] + png(smooth())[500:], "png", "damaged: the checksum of IDAT|only pixels"),
        (jpeg(smooth(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1), "jpeg", "not a baseline JPEG"),
        (WHOLE.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "jpeg", "12 bits per channel, 8 are read"),
        (b"GIF89a" + bytes(64), "jpeg", "not a PNG file"),
    ],
)  # fmt: skip
def test_another_kind_of_file_is_named(data: bytes, form: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(data, form)


def test_a_cmyk_jpeg_is_named() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="OpenCV writes none of four channels")
    import io

    file = io.BytesIO()
    pillow.new("CMYK", (64, 48), (10, 20, 30, 40)).save(file, "jpeg")
    with pytest.raises(ValueError, match="4 channels"):
        read(file.getvalue())


def test_an_observation_names_the_camera_whose_image_is_none(profile: Profile) -> None:
    camera = CameraTopic("base", "image", height=48, width=64, compressed=True)

    def images(data: bytes, **changes: Any) -> dict[str, np.ndarray]:
        robot = replace(profile, cameras=(replace(camera, **changes),))
        return camera_images(robot, Bundle(0, 0, {"camera base": Message(format="jpeg", data=data)}))

    assert images(WHOLE)["base"].shape == (48, 64, 3)
    with pytest.raises(ValueError, match="camera base: compressed image of"):
        images(PART + END)
    with pytest.raises(ValueError, match="camera base sends 64x48, the profile says 48x64"):
        images(WHOLE, height=64, width=48)
