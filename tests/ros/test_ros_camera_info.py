"""Where a camera's calibration is read, and when it does not fit the images."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.ros

K = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("topic", "compressed", "expected"),
    [
        ("camera/base/image_raw", False, "camera/base/camera_info"),
        ("/left/camera/color/image_rect", False, "/left/camera/color/camera_info"),
        ("camera/base/image_raw/compressed", True, "camera/base/camera_info"),
        ("image", False, "camera_info"),
    ],
)
def test_the_topic_is_the_one_of_image_transport(topic: str, compressed: bool, expected: str) -> None:
    from pirl_ros.adapters.camera_info import info_topic

    assert info_topic(topic, compressed) == expected


def test_what_is_stored_is_json_whatever_a_driver_sends() -> None:
    from pirl_ros.adapters.camera_info import values

    header = SimpleNamespace(frame_id="lens")
    odd = SimpleNamespace(
        header=header, width=640, height=480, distortion_model="", d=[math.nan], k=K, r=[math.inf], p=[]
    )
    stored = json.loads(json.dumps(values(odd), allow_nan=False))
    assert (stored["d"], stored["r"], stored["k"]) == ([None], [None], K)


def calibration(k: list[float] = K, binning: int = 0, roi: tuple[int, int] = (0, 0)) -> Any:
    region = SimpleNamespace(width=roi[0], height=roi[1])
    return SimpleNamespace(width=640, height=480, k=k, binning_x=binning, binning_y=binning, roi=region)


@pytest.mark.parametrize(
    ("info", "size", "doubt"),
    [
        (calibration(), (640, 480), ""),
        (calibration(binning=2), (320, 240), ""),
        (calibration(roi=(320, 320), binning=2), (160, 160), ""),
        (calibration(), (320, 240), "camera_info of camera base is for 640x480, its images are 320x240"),
        (calibration(binning=2), (640, 480), "camera_info of camera base is for 320x240, its images are 640x480"),
        (calibration(k=[0.0] * 9), (640, 480), "camera base is not calibrated"),
        (calibration(k=[math.nan, *K[1:]]), (640, 480), "camera base is not calibrated"),
    ],
)
def test_a_calibration_of_other_images_is_named(info: Any, size: tuple[int, int], doubt: str) -> None:
    from pirl_ros.adapters.camera_info import unfit

    said = unfit("base", info, *size)
    assert said.startswith(doubt)
    assert bool(said) == bool(doubt)
