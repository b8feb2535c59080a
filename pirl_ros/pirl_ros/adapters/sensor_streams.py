"""Subscribes to the profile's topics and feeds a synchroniser."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped, WrenchStamped
from sensor_msgs.msg import CompressedImage, Image, JointState

from pirl_ros.adapters import qos
from pirl_ros.adapters.gated_subscriptions import GatedGroup
from pirl_ros.profile.profile import Profile
from pirl_ros.sensing.observation import (
    GRIPPER,
    JOINTS,
    camera_stream,
    make_assemblers,
    make_synchronizer,
    pose_stream,
    wrench_stream,
)
from pirl_ros.sensing.sensor_messages import require_decoder, stamp_to_ns
from pirl_ros.sensing.synchronizer import Bundle

_READ_BEST_EFFORT = "best effort publisher, reliable subscription: set reliable_sensors: false in the robot profile"


class SensorStreams:
    """All streams of one robot; `on_message` is called after each message that came in.

    With `followers` only joint states wake the executor: the other streams, in that group, are read with each of them,
    and waited for only while one of them is late. A message that wakes an executor of rclpy costs more than all we do
    with it.

    A publisher whose QoS does not fit is the reason that `newest` gives until a message of that stream comes.
    """

    def __init__(
        self,
        node: Any,
        profile: Profile,
        cameras: bool,
        on_message: Callable[[], None],
        group: Any = None,
        followers: GatedGroup | None = None,
    ) -> None:
        """Subscribe, in the callback groups given. ValueError: a compressed camera without OpenCV."""
        self._sync, self._joints = make_synchronizer(profile, cameras), make_assemblers(profile)
        self._on_message, self._followers = on_message, followers
        self._led_ns, self._quiet = 0, False
        self._unfit: dict[str, str] = {}
        quality, topics = qos.sensor(profile.reliable_sensors), _topics(profile, cameras)
        self.count = len(topics)
        for kind, topic, stream in topics:
            events = qos.subscription_events(topic, partial(self._unfit.__setitem__, stream), _READ_BEST_EFFORT)
            mine = group if followers is None or stream == JOINTS else followers
            node.create_subscription(
                kind,
                topic,
                partial(self._take, stream),
                callback_group=mine,
                event_callbacks=events,
                **qos.overridable(quality),
            )

    def newest(self) -> tuple[Bundle | None, str]:
        """Return the newest complete set, or None and why there is none."""
        now_ns = time.monotonic_ns()
        bundle, reason = self._sync.newest(now_ns)
        if bundle is not None:
            return bundle, reason
        causes = [cause for stream, cause in self._unfit.items() if stream in self._sync.silent()]
        causes += [lacking for each in self._joints.values() if (lacking := each.lacking(now_ns))]
        return bundle, "; ".join([reason, *causes])

    def clear(self) -> None:
        """Forget what came so far: the world was reset."""
        self._sync.clear()
        for each in self._joints.values():
            each.clear()

    def _take(self, stream: str, message: Any) -> None:
        self._unfit.pop(stream, None)
        stamp_ns, now_ns = stamp_to_ns(message.header.stamp), time.monotonic_ns()
        if stream in self._joints:
            arrival = self._joints[stream].take(message, stamp_ns, now_ns)
            if arrival is None:  # of other joints, or not all of them yet
                return
            stamp_ns, now_ns, message = arrival.stamp_ns, arrival.received_ns, arrival.message
        self._sync.push(stream, stamp_ns, message, now_ns)
        if self._quiet:
            return
        if self._followers is not None:
            if stream == JOINTS:
                self._led_ns = stamp_ns
                self.catch_up(self._followers)
            bundle, _ = self._sync.newest(now_ns)
            self._followers.open = bundle is None or bundle.stamp_ns < self._led_ns
        self._on_message()

    def catch_up(self, group: GatedGroup) -> None:
        """Take in what waits in a closed group, without a call of `on_message`."""
        self._quiet = True
        try:
            group.take()
        finally:
            self._quiet = False


def _topics(profile: Profile, cameras: bool) -> list[tuple[Any, str, str]]:
    topics: list[tuple[Any, str, str]] = [(JointState, profile.joint_states, JOINTS)]
    if profile.gripper.joint_states:
        topics.append((JointState, profile.gripper.joint_states, GRIPPER))
    topics += [(PoseStamped, pose.topic, pose_stream(pose.name)) for pose in profile.poses]
    topics += [(WrenchStamped, wrench.topic, wrench_stream(wrench.name)) for wrench in profile.wrenches]
    if cameras:
        if any(camera.compressed for camera in profile.cameras):
            require_decoder()
        topics += [
            (CompressedImage if camera.compressed else Image, camera.topic, camera_stream(camera.name))
            for camera in profile.cameras
        ]
    return topics
