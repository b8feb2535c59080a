"""ROS messages to numpy and back, without ROS: functions look at the fields of a message, never at its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Image, Vector

# encoding -> (channels stored, which of them are R, G, B)
_ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}


def image_to_rgb(message: Any) -> Image:
    """Return sensor_msgs/Image as uint8 RGB [height, width, 3]; rows may be padded. ValueError: why not."""
    if message.encoding not in _ENCODINGS:
        raise ValueError(f"image encoding '{message.encoding}' is not supported: use {', '.join(_ENCODINGS)}")
    channels, order = _ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    if step < width * channels or data.size < step * height:
        raise ValueError(f"image of {width}x{height} {message.encoding} has step {step} and {data.size} bytes: too few")
    rows = data[: step * height].reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    if order == (0, 1, 2) and channels == 3:
        return np.ascontiguousarray(rows)
    return np.ascontiguousarray(rows[:, :, list(order)])


def fill_image(message: Any, image: Image, encoding: str = "rgb8") -> None:
    """Write uint8 RGB [height, width, 3] into a sensor_msgs/Image in `encoding`."""
    if encoding not in _ENCODINGS:
        raise ValueError(f"image encoding '{encoding}' is not supported: use {', '.join(_ENCODINGS)}")
    channels, order = _ENCODINGS[encoding]
    height, width, _ = image.shape
    stored = np.full((height, width, channels), 255, np.uint8)
    for source, target in enumerate(order):
        stored[:, :, target] = image[:, :, source]
    message.height, message.width, message.encoding = height, width, encoding
    message.step, message.is_bigendian = width * channels, 0
    # bytes: assigning the array itself makes rclpy copy it element by element
    message.data = stored.tobytes()


def joints_by_name(message: Any, names: Sequence[str]) -> tuple[Vector, Vector]:
    """Return positions and velocities [J] of sensor_msgs/JointState in the order of `names`.

    ValueError when a joint is missing or a value is not finite: a state is never completed with zeros.
    """
    index = {name: position for position, name in enumerate(message.name)}
    if missing := [name for name in names if name not in index]:
        raise ValueError(f"joint state lacks {', '.join(missing)}; it has {', '.join(message.name)}")
    order = [index[name] for name in names]
    if len(message.position) != len(message.name) or len(message.velocity) != len(message.name):
        raise ValueError("joint state must carry one position and one velocity per name")
    positions = np.asarray(message.position, np.float32)[order]
    velocities = np.asarray(message.velocity, np.float32)[order]
    if not (np.isfinite(positions).all() and np.isfinite(velocities).all()):
        raise ValueError("joint state is not finite")
    return positions, velocities


def pose_to_vector(message: Any) -> Vector:
    """Return geometry_msgs/PoseStamped as [7]: x, y, z in metres, then the quaternion w, x, y, z."""
    position, turn = message.pose.position, message.pose.orientation
    vector = np.array([position.x, position.y, position.z, turn.w, turn.x, turn.y, turn.z], np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("pose is not finite")
    return vector


def fill_pose(message: Any, vector: NDArray[Any]) -> None:
    """Write xyz or xyz + wxyz into a geometry_msgs/PoseStamped; without a quaternion: no rotation."""
    values = [float(value) for value in vector]
    quaternion = values[3:] or [1.0, 0.0, 0.0, 0.0]
    position, turn = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = values[:3]
    turn.w, turn.x, turn.y, turn.z = quaternion


def stamp_to_ns(stamp: Any) -> int:
    """Return builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
