#!/usr/bin/env bash
# rmw_fastrtps_cpp 8.4.3 (ROS 2 Jazzy, PyPI wheels) with a message package that has its Fast DDS type support and not the
# introspection one, as in an image or a build that was trimmed to what the middleware's name asks for.
# Expected: all works. rmw_fastrtps_cpp serialises with rosidl_typesupport_fastrtps_c; introspection is what its sibling
# rmw_fastrtps_dynamic_cpp is made for.
# Seen: serialize_message and deserialize_message work, and no publisher can be created: "failed to register type object
# with incompatible type". The type that is announced to others is described from the introspection type support. The
# message before it, "Type support not from this implementation", names neither the library nor the package that lacks it.
# Output seen: "a publisher is created", then "RCLError: Failed to create publisher: failed to register type object with
# incompatible type std_msgs::msg::dds_::String_"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ros-jazzy-rclpy==7.1.6 ros-jazzy-rmw-fastrtps-cpp==8.4.3 ros-jazzy-std-msgs numpy==2.4.6
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$((RANDOM % 100 + 1)) FASTDDS_BUILTIN_TRANSPORTS=UDPv4
cat >"$folder/publish.py" <<'PY'
import sys

import rclpy
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import String

assert deserialize_message(serialize_message(String(data="text")), String).data == "text"
rclpy.init()
node = Node("node")
try:
    node.create_publisher(String, "topic", 1)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {str(error).splitlines()[0]}")
print("a publisher is created")
PY
python="$folder/venv/bin/python"
"$python" "$folder/publish.py"
find "$folder/venv" -name 'libstd_msgs__rosidl_typesupport_introspection_c.so' -delete
if "$python" "$folder/publish.py" 2>"$folder/error"; then
    echo "CHANGED: a publisher needs no introspection type support now"
    exit 1
fi
tail -n 1 "$folder/error"
grep -q 'failed to register type object' "$folder/error" || { echo "CHANGED: another error"; exit 1; }
