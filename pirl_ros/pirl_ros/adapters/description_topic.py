"""Reads a robot's URDF from the topic that robot_state_publisher latches it on."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.utilities import try_shutdown
from std_msgs.msg import String

from pirl_ros.adapters import qos


def read_description(topic: str, timeout_s: float) -> str:
    """Return the text that was published last on `topic`. ValueError when none comes within `timeout_s`."""
    context = Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("pirl_robot_from_urdf", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        received: list[str] = []

        def take(message: Any) -> None:
            received.append(message.data)

        node.create_subscription(String, topic, take, qos.LATCHED)
        end = time.monotonic() + timeout_s
        while not received and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        publishers = node.count_publishers(topic)
    except ExternalShutdownException:
        raise ValueError(f"interrupted while waiting for {topic}") from None
    finally:
        try_shutdown(context=context)
    if received:
        return received[-1]
    seen = f"{publishers} publishers were seen" if publishers else "no publisher was seen"
    raise ValueError(
        f"nothing came on {topic} within {timeout_s:g} s, {seen}: is robot_state_publisher running, in this"
        " ROS_DOMAIN_ID and namespace?"
    )
