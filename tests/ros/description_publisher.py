"""A process that latches a URDF on a topic, as robot_state_publisher does: TOPIC FILE."""

from __future__ import annotations

import sys
from pathlib import Path

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String


def main(topic: str, path: str) -> None:
    rclpy.init()
    node = rclpy.create_node("robot_state_publisher")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_publisher(String, topic, latched).publish(String(data=Path(path).read_text()))
    print("published", flush=True)
    sys.stdin.read()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
