#!/usr/bin/env bash
# rclpy 7.1.6 (ROS 2 Jazzy, PyPI wheels, Fast DDS): one QoSProfile for several topics, as most nodes have, and a user who
# overrides the QoS of one of them by parameters (`qos_overrides./joint_states.subscription...`).
# Expected: the topic that the parameter names has the override, and no other.
# Seen: the profile object itself is changed, so every topic that is made with it later has the override too, with and
# without overriding options of its own, also in another node of the process. A button that was to be reliable is then
# published best effort because somebody wanted joint states so, and its reliable reader gets nothing. A node is safe if
# it hands each topic a copy.
# Output seen: "emergency_stop, made after joint_states: BEST_EFFORT" and "emergency_stop, each with a copy: RELIABLE".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ros-jazzy-rclpy==7.1.6 ros-jazzy-rmw-fastrtps-cpp ros-jazzy-std-msgs numpy==2.4.6
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$((RANDOM % 100 + 1)) FASTDDS_BUILTIN_TRANSPORTS=UDPv4
"$folder/venv/bin/python" - <<'PY'
from copy import copy

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Bool

rclpy.init(args=["--ros-args", "-p", "qos_overrides./joint_states.subscription.reliability:=best_effort"])
options = QoSOverridingOptions.with_default_policies()


def reliability(node, shared):
    """Of a publisher that is made after a subscription whose QoS is overridden."""
    profile = shared if node.get_name() == "one" else copy(shared)
    node.create_subscription(Bool, "joint_states", print, profile, qos_overriding_options=options)
    publisher = node.create_publisher(Bool, "emergency_stop", shared)
    [info] = [each for each in node.get_publishers_info_by_topic("emergency_stop") if each.node_name == node.get_name()]
    return info.qos_profile.reliability


spread = reliability(Node("one"), QoSProfile(depth=1))
print("emergency_stop, made after joint_states:", spread.name)
control = reliability(Node("two"), QoSProfile(depth=1))
print("emergency_stop, each with a copy:", control.name)
assert control == ReliabilityPolicy.RELIABLE
assert spread == ReliabilityPolicy.BEST_EFFORT, "CHANGED: an override stays with its topic now"
PY
