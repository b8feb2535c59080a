#!/usr/bin/env bash
# rclpy 7.1.6 (ROS 2 Jazzy, PyPI wheels, Fast DDS), rclpy.qos.qos_check_compatible: the profile that a publisher was made
# with against the same publisher's profile as the graph (get_publishers_info_by_topic) gives it back.
# Expected: compatible, as the two endpoints are, and messages flow.
# Seen: ERROR, for the deadline and the liveliness lease. Unspecified durations are 0 in the profile that was made and
# infinite in the one from the graph, and the function compares the numbers. A diagnostic built on it reports endpoints
# that work.
# Output seen: "made: 0 ns, graph: 9223372036854775807 ns; check: ERROR ERROR: Subscription has a deadline, but publisher
# does not;ERROR: Subscription has a liveliness lease duration, but publisher does not;"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ros-jazzy-rclpy==7.1.6 ros-jazzy-rmw-fastrtps-cpp ros-jazzy-std-msgs numpy==2.4.6
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$((RANDOM % 100 + 1)) FASTDDS_BUILTIN_TRANSPORTS=UDPv4
"$folder/venv/bin/python" - <<'PY'
import time

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from std_msgs.msg import String

rclpy.init()
node, seen = Node("node"), []
made = QoSProfile(depth=1)
publisher = node.create_publisher(String, "topic", made)
node.create_subscription(String, "topic", lambda message: seen.append(message.data), made)
deadline = time.monotonic() + 20
while not seen and time.monotonic() < deadline:
    publisher.publish(String(data="flows"))
    rclpy.spin_once(node, timeout_sec=0.1)
assert seen, "no message came"
[info] = node.get_publishers_info_by_topic("topic")
for order in ((info.qos_profile, made), (made, info.qos_profile)):
    compatibility, reason = qos_check_compatible(*order)
    print(f"made: {made.deadline.nanoseconds} ns, graph: {info.qos_profile.deadline.nanoseconds} ns; check: {compatibility.name} {reason}")
results = [qos_check_compatible(*order)[0] for order in ((info.qos_profile, made), (made, info.qos_profile))]
assert any(result != QoSCompatibility.OK for result in results), "CHANGED: the same profile is compatible with itself now"
PY
