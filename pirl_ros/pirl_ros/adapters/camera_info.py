"""The calibration of each camera, as its driver publishes it, for the metadata of episodes."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

from sensor_msgs.msg import CameraInfo

from pirl_ros.adapters import qos
from pirl_ros.adapters.gated_subscriptions import GatedGroup
from pirl_ros.profile.profile import Profile


class CameraInfos:
    """Reads `camera_info` beside each camera's image topic when an episode starts; a camera without one has none.

    Nothing here wakes the executor: a driver publishes it with every image, and it is wanted once per episode.
    """

    def __init__(self, node: Any, profile: Profile) -> None:
        self._group, self._newest = GatedGroup(), dict[str, Any]()
        self._sizes = {camera.name: (camera.width, camera.height) for camera in profile.cameras}
        for camera in profile.cameras:
            topic = info_topic(camera.topic, camera.compressed)
            node.create_subscription(
                CameraInfo,
                topic,
                partial(self._newest.__setitem__, camera.name),
                qos.STREAM,
                callback_group=self._group,
            )

    def metadata(self) -> tuple[dict[str, str], list[str]]:
        """Return `camera_info.NAME` -> JSON for each calibrated camera, and a sentence on each that does not fit."""
        self._group.take()
        entries = {f"camera_info.{name}": json.dumps(values(info)) for name, info in self._newest.items()}
        doubts = [unfit(name, info, *self._sizes[name]) for name, info in self._newest.items()]
        return entries, [doubt for doubt in doubts if doubt]


def info_topic(topic: str, compressed: bool) -> str:
    """Return the topic of image_transport's convention: `camera_info` in the namespace of the (raw) image topic."""
    raw = topic.rpartition("/")[0] if compressed and "/" in topic else topic
    namespace, slash, _ = raw.rpartition("/")
    return f"{namespace}{slash}camera_info"


def values(info: Any) -> dict[str, Any]:
    """Return what a sensor_msgs/CameraInfo holds: pixels, and matrices row by row as in the message."""
    return {
        "frame_id": info.header.frame_id,
        "width": info.width,
        "height": info.height,
        "distortion_model": info.distortion_model,
        **{key: [_json_number(value) for value in getattr(info, key)] for key in ("d", "k", "r", "p")},
    }


def _json_number(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return float(value) if math.isfinite(value) else None


def unfit(name: str, info: Any, width: int, height: int) -> str:
    """Return what speaks against using the calibration for images of `width` x `height` pixels; empty: nothing.

    Binning and a region of interest make the image smaller than the sensor that was calibrated.
    """
    if not any(info.k) or not all(map(math.isfinite, info.k)):
        return f"camera {name} is not calibrated: the matrix of its camera_info is zero or not finite"
    roi = info.roi
    full = (roi.width or info.width, roi.height or info.height)
    size = tuple(side // max(binning, 1) for side, binning in zip(full, (info.binning_x, info.binning_y)))
    if size == (width, height):
        return ""
    return f"camera_info of camera {name} is for {size[0]}x{size[1]}, its images are {width}x{height}: scale its matrix"
