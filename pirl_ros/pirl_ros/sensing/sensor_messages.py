"""Sensor messages to numpy and back, duck-typed: functions read fields, never the class."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Image, Vector
from pirl_contract.wire.image_codec import MAX_IMAGE_PIXELS, png_size
from pirl_contract.wire.jpeg_stream import check_whole, read_header, standard_tables
from pirl_ros.sensing.jpeg_steps import lost_at
from pirl_ros.sensing.yuv import PACKED, PLANAR, packed_to_rgb, planar_to_rgb

# encoding -> (channels stored, which of them are R, G, B); 8 bits each, or 16 where the name says so
_ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "rgb16": (3, (0, 1, 2)),
    "bgr16": (3, (2, 1, 0)),
    "mono16": (1, (0, 0, 0)),
}
_DEPTHS = ("16UC1", "32FC1", "mono16")
"""encodings that a compressed image's format begins with when its pixels are distances, or have 16 bits"""
_PNG_COLOURS = {0: 1, 2: 3, 6: 4}
"""grey, RGB, RGBA"""
_SUPPORTED = (*_ENCODINGS, *PACKED, *PLANAR)


def image_to_rgb(message: Any) -> Image:
    """Return sensor_msgs/Image as uint8 RGB [height, width, 3]; rows may be padded. ValueError: why not.

    The result may share the message's memory. 16-bit channels keep their upper 8 bits.
    """
    encoding = message.encoding
    if encoding in _ENCODINGS:
        return _channels_to_rgb(message)
    if encoding in PACKED:
        _even(message, width=True)
        return packed_to_rgb(_rows(message, int(message.width) * 2, int(message.height)), encoding)
    if encoding in PLANAR:
        _even(message, width=True, height=True)
        return planar_to_rgb(_rows(message, int(message.width), int(message.height) * 3 // 2), encoding)
    if encoding.startswith("bayer_"):
        raise ValueError(
            f"image encoding '{encoding}' is a Bayer pattern: run image_proc's debayer node and use its output topic"
        )
    raise ValueError(f"image encoding '{encoding}' is not supported: use {', '.join(_SUPPORTED)}")


def compressed_to_rgb(message: Any) -> Image:
    """Return sensor_msgs/CompressedImage (JPEG or PNG) as uint8 RGB [height, width, 3]. ValueError: why not.

    A file of which a part is lost is no image: decoders fill it with grey, or with what belongs elsewhere.
    """
    if "compressedDepth" in message.format or message.format.startswith(_DEPTHS):
        raise ValueError(f"compressed image of format '{message.format}' is a depth map: use a colour image's topic")
    cv2, data = require_decoder(), bytes(message.data)
    try:
        return _decoded(cv2, data)
    except ValueError as error:
        raise ValueError(
            f"compressed image of {len(data)} bytes and format '{message.format}' cannot be decoded: {error}"
        ) from None


def _decoded(cv2: Any, data: bytes) -> Image:
    """uint8 RGB of a whole JPEG or PNG. ValueError: what it is, or what is lost."""
    jpeg = read_header(data) if data[:2] == b"\xff\xd8" else None
    size = png_size(data, _PNG_COLOURS) if jpeg is None else (jpeg.height, jpeg.width)
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise ValueError(f"{size[1]}x{size[0]} pixels are more than {MAX_IMAGE_PIXELS}")
    if jpeg is not None:
        check_whole(jpeg, _standard_tables())
    # A policy was trained on the pixels as the sensor gave them, not as an EXIF tag would turn them.
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None or decoded.shape[:2] != size:
        raise ValueError("the file is damaged")
    if jpeg is not None and not jpeg.restart and (place := lost_at(decoded, jpeg.mcu)) is not None:
        raise ValueError(f"the JPEG file lost data: from block {place[0]}, {place[1]} on its brightness is off")
    return _reordered(decoded, (2, 1, 0))


@cache
def _standard_tables() -> tuple[bytes, ...]:
    """OpenCV writes them into each of its files."""
    return standard_tables(bytes(require_decoder().imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1]))


def require_decoder() -> Any:
    """Return the cv2 module. ValueError when it is not installed: the base of a robot does without."""
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise ValueError(
            "compressed cameras need OpenCV: apt install python3-opencv (or pip install opencv-python-headless),"
            " or use the raw image topic with compressed: false"
        ) from error


def fill_image(message: Any, image: Image, encoding: str = "rgb8") -> None:
    """Write uint8 RGB [height, width, 3] into a sensor_msgs/Image in an encoding of three or four 8-bit channels.

    Raises ValueError for another encoding.
    """
    if encoding not in ("rgb8", "bgr8", "rgba8", "bgra8"):
        raise ValueError(f"image encoding '{encoding}' is not supported for output: use rgb8, bgr8, rgba8 or bgra8")
    channels, order = _ENCODINGS[encoding]
    height, width, _ = image.shape
    stored = np.full((height, width, channels), 255, np.uint8)
    for source, target in enumerate(order):
        stored[:, :, target] = image[:, :, source]
    message.height, message.width, message.encoding = height, width, encoding
    message.step, message.is_bigendian = width * channels, 0
    # bytes: assigning the array itself makes rclpy copy it element by element
    message.data = stored.tobytes()


def joints_by_name(message: Any, names: Sequence[str], velocities: bool = True) -> tuple[Vector, Vector]:
    """Return positions and velocities [J] of sensor_msgs/JointState in the order of `names`.

    Without `velocities` the second is empty. ValueError when a joint is missing or a value is not finite: a state is
    never completed with zeros.
    """
    index = {name: position for position, name in enumerate(message.name)}
    if missing := [name for name in names if name not in index]:
        raise ValueError(f"joint state lacks {', '.join(missing)}; it has {', '.join(message.name)}")
    order = [index[name] for name in names]
    positions = _entries("position", message.position, message.name, order)
    return positions, _entries("velocity", message.velocity, message.name, order if velocities else [])


def pose_to_vector(message: Any) -> Vector:
    """Return geometry_msgs/PoseStamped as [7]: x, y, z in metres, then the quaternion w, x, y, z.

    Raises ValueError when it is not finite.
    """
    position, turn = message.pose.position, message.pose.orientation
    vector = np.array([position.x, position.y, position.z, turn.w, turn.x, turn.y, turn.z], np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("pose is not finite")
    return vector


def wrench_to_vector(message: Any) -> Vector:
    """Return geometry_msgs/WrenchStamped as [6]: force x, y, z in N, torque x, y, z in Nm.

    Raises ValueError when it is not finite.
    """
    force, torque = message.wrench.force, message.wrench.torque
    vector = np.array([force.x, force.y, force.z, torque.x, torque.y, torque.z], np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("wrench is not finite")
    return vector


def fill_pose(message: Any, vector: NDArray[Any]) -> None:
    """Write xyz or xyz + wxyz into a geometry_msgs/PoseStamped; without a quaternion: no rotation.

    `vector` [3] or [7], metres.
    """
    values = [float(value) for value in vector]
    quaternion = values[3:] or [1.0, 0.0, 0.0, 0.0]
    position, turn = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = values[:3]
    turn.w, turn.x, turn.y, turn.z = quaternion


def stamp_to_ns(stamp: Any) -> int:
    """Return builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _entries(what: str, values: Sequence[float], names: Sequence[str], order: Sequence[int]) -> Vector:
    if not order:
        return np.zeros(0, np.float32)
    if len(values) != len(names):
        raise ValueError(f"joint state must have one {what} per name, it has {len(values)} for {len(names)}")
    entries = np.asarray(values, np.float32)[order]
    if not np.isfinite(entries).all():
        raise ValueError(f"joint state is not finite: {what} of {names[order[int(np.argmin(np.isfinite(entries)))]]}")
    return entries


def _channels_to_rgb(message: Any) -> Image:
    channels, order = _ENCODINGS[message.encoding]
    height, width = int(message.height), int(message.width)
    if not message.encoding.endswith("16"):
        return _reordered(_rows(message, width * channels, height).reshape(height, width, channels), order)
    pairs = _rows(message, width * channels * 2, height).reshape(height, width, channels, 2)
    return _reordered(pairs[:, :, :, 0 if message.is_bigendian else 1], order)


def _rows(message: Any, used: int, count: int) -> NDArray[np.uint8]:
    """The first `used` bytes of each of `count` rows."""
    step, data = int(message.step), np.frombuffer(message.data, np.uint8)
    if step < used or data.size < step * count:
        size = f"{message.width}x{message.height}"
        raise ValueError(f"image of {size} {message.encoding} has step {step} and {data.size} bytes: too few")
    return data[: step * count].reshape(count, step)[:, :used]


def _reordered(stored: NDArray[np.uint8], order: tuple[int, int, int]) -> Image:
    if order == (0, 1, 2) and stored.shape[2] == 3:
        return np.ascontiguousarray(stored)
    image = np.empty((*stored.shape[:2], 3), np.uint8)
    # Channel by channel: an index list or a reversed axis takes five times as long.
    for target, source in enumerate(order):
        image[:, :, target] = stored[:, :, source]
    return image


def _even(message: Any, width: bool = False, height: bool = False) -> None:
    if (width and int(message.width) % 2) or (height and int(message.height) % 2):
        raise ValueError(f"image of {message.width}x{message.height} {message.encoding}: it needs an even size")
