"""The profile's topics, subscribed and put into a synchroniser."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState

from pirl_ros import qos
from pirl_ros.convert import stamp_to_ns
from pirl_ros.observing import JOINTS, camera_stream, make_synchronizer, pose_stream
from pirl_ros.profile import Profile
from pirl_ros.sync import Bundle


class SensorStreams:
    """All streams of one robot; `on_message` is called after each message that came in."""

    def __init__(self, node: Any, profile: Profile, cameras: bool, on_message: Callable[[], None]) -> None:
        self._sync = make_synchronizer(profile, cameras)
        self._on_message = on_message
        topics: list[tuple[Any, str, str]] = [(JointState, profile.joint_states, JOINTS)]
        topics += [(PoseStamped, pose.topic, pose_stream(pose.name)) for pose in profile.poses]
        if cameras:
            topics += [(Image, camera.topic, camera_stream(camera.name)) for camera in profile.cameras]
        quality = qos.sensor(profile.reliable_sensors)
        for kind, topic, stream in topics:
            node.create_subscription(kind, topic, partial(self._take, stream), quality)

    def newest(self) -> tuple[Bundle | None, str]:
        """Return the newest complete set, or None and why there is none."""
        return self._sync.newest(time.monotonic_ns())

    def clear(self) -> None:
        """Forget what came so far: the world was reset."""
        self._sync.clear()

    def _take(self, stream: str, message: Any) -> None:
        self._sync.push(stream, stamp_to_ns(message.header.stamp), message, time.monotonic_ns())
        self._on_message()
