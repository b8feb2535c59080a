#!/usr/bin/env bash
# rclpy 7.1.6 (ROS 2 Jazzy, PyPI wheels), LifecycleNode: a change_state request that fits no state, here `activate` sent to
# a node that is active already.
# Expected: the service replies success=False, as its definition and rclcpp's nodes suggest, and the node goes on.
# Seen: rclpy.lifecycle raises RCLError out of the service callback; it leaves the executor's spin, no reply is sent, and a
# process that does not catch it ends, with every node in it. One mistyped `ros2 lifecycle set` stops a whole robot.
# Output seen: "raised RCLError: Failed to trigger lifecycle state machine transition: Transition is not registered. ..."
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ros-jazzy-rclpy==7.1.6 ros-jazzy-rmw-fastrtps-cpp ros-jazzy-lifecycle-msgs numpy==2.4.6
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$((RANDOM % 100 + 1)) FASTDDS_BUILTIN_TRANSPORTS=UDPv4
"$folder/venv/bin/python" - <<'PY'
import time

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node

rclpy.init()
node, caller = LifecycleNode("node"), Node("caller")
node.trigger_configure()
node.trigger_activate()
client = caller.create_client(ChangeState, "node/change_state")
executor = SingleThreadedExecutor()
executor.add_node(node)
executor.add_node(caller)
assert client.wait_for_service(20.0), "the node's service was not found"
reply = client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE)))
raised, deadline = None, time.monotonic() + 20
while raised is None and not reply.done() and time.monotonic() < deadline:
    try:
        executor.spin_once(timeout_sec=0.1)
    except Exception as error:
        raised = error
print(f"raised {type(raised).__name__}: {raised}; replied: {reply.done()}")
assert type(raised).__name__ == "RCLError" and not reply.done(), "CHANGED: the request is answered now"
PY
