"""Images of ROS 2 messages as RGB, raw or compressed, with the conversions of OpenCV."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pirl_contract.wire.image_codec import MAX_IMAGE_PIXELS
from pirl_contract.wire.jpeg_stream import check_whole, read_header, standard_tables

PLAIN = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "rgb16": 3,
    "bgr16": 3,
    "mono16": 1,
    "8UC3": 3,
    "8UC1": 1,
}
"""encoding -> channels"""
COLOURS = {
    "bgr8": cv2.COLOR_BGR2RGB, "8UC3": cv2.COLOR_BGR2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB, "8UC1": cv2.COLOR_GRAY2RGB, "mono16": cv2.COLOR_GRAY2RGB,
    "bgr16": cv2.COLOR_BGR2RGB,
}  # fmt: skip
PACKED = {
    "yuyv": cv2.COLOR_YUV2RGB_YUY2, "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2, "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
}  # fmt: skip
"""two bytes a pixel"""
PLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
"""three halves of a byte a pixel"""
COMPRESSED = "sensor_msgs/msg/CompressedImage"
RAW = "sensor_msgs/msg/Image"


def rgb(message: Any) -> NDArray[np.uint8]:
    """Return a sensor_msgs Image or CompressedImage as RGB [height, width, 3]. Raises ValueError: why not."""
    return _compressed(message) if message.__msgtype__ == COMPRESSED else _raw(message)


def _raw(message: Any) -> NDArray[np.uint8]:
    encoding, height, width = message.encoding, int(message.height), int(message.width)
    if not 0 < height * width <= MAX_IMAGE_PIXELS:
        raise ValueError(f"image of {width}x{height} pixels: 1 to {MAX_IMAGE_PIXELS} are read")
    if encoding in PLAIN:
        channels, wide = PLAIN[encoding], encoding.endswith("16")
        rows = _rows(message, width * channels * (2 if wide else 1), height)
        if wide:  # the upper byte of each pair
            rows = rows.reshape(height, -1, 2)[:, :, 0 if message.is_bigendian else 1]
        stored = np.ascontiguousarray(rows).reshape((height, width) if channels == 1 else (height, width, channels))
        code = COLOURS.get(encoding)
        return stored if code is None else np.asarray(cv2.cvtColor(stored, code), np.uint8)
    if encoding in PACKED:
        stored = np.ascontiguousarray(_rows(message, width * 2, height)).reshape(height, width, 2)
        return np.asarray(cv2.cvtColor(stored, PACKED[encoding]), np.uint8)
    if encoding in PLANAR:
        stored = np.ascontiguousarray(_rows(message, width, height * 3 // 2))
        return np.asarray(cv2.cvtColor(stored, PLANAR[encoding]), np.uint8)
    hint = ": record the topic of image_proc's debayer node" if encoding.startswith("bayer_") else ""
    raise ValueError(f"image encoding '{encoding}' is not read{hint}: {', '.join([*PLAIN, *PACKED, *PLANAR])} are")


def _rows(message: Any, used: int, count: int) -> NDArray[np.uint8]:
    """The first `used` bytes of each of `count` rows."""
    step, data = int(message.step), np.asarray(message.data, np.uint8)
    if step < used or data.size < step * count:
        size = f"{message.width}x{message.height}"
        raise ValueError(f"image of {size} {message.encoding} has step {step} and {data.size} bytes: too few")
    return data[: step * count].reshape(count, step)[:, :used]


def _compressed(message: Any) -> NDArray[np.uint8]:
    data, said = bytes(message.data), str(message.format)
    if "compressedDepth" in said or said.startswith(("16UC1", "32FC1", "mono16")):
        raise ValueError(f"compressed image of format '{said}' is a depth map: map a colour image's topic")
    try:
        if data[:2] == b"\xff\xd8":
            check_whole(read_header(data), _tables())
    except ValueError as error:
        raise ValueError(f"compressed image of {len(data)} bytes can't be decoded: {error}") from None
    # pixels as the sensor gave them, not as an EXIF tag would turn them
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None or decoded.shape[0] * decoded.shape[1] > MAX_IMAGE_PIXELS:
        raise ValueError(f"compressed image of {len(data)} bytes and format '{said}' can't be decoded")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


@cache
def _tables() -> tuple[bytes, ...]:
    return standard_tables(bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1]))
