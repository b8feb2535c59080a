"""Forwards server-pushed events from the client's thread to the node's, above all emergency stops."""

from __future__ import annotations

from collections import deque
from typing import Any

from std_msgs.msg import Bool

from pirl_contract.v1 import policy_pb2 as pb
from pirl_ros.adapters import qos
from pirl_ros.adapters.interfaces import EmergencyStop


class ServerEvents:
    """An emergency stop goes to the arm as the topic and as the service: one is quick, the other says who and why."""

    def __init__(self, node: Any) -> None:
        self._node, self._waiting = node, deque[pb.ServerEvent]()
        self._topic = node.create_publisher(Bool, "emergency_stop", qos.OUTCOME)
        self._service = node.create_client(EmergencyStop, "emergency_stop")
        self._guard = node.create_guard_condition(self._take)

    def put(self, event: pb.ServerEvent) -> None:
        """Take an event; for any thread."""
        self._waiting.append(event)
        self._guard.trigger()

    def _take(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            if event.HasField("emergency_stop"):
                self._stop(event.emergency_stop.by, event.emergency_stop.reason)
            elif event.HasField("draining"):
                self._log(f"the policy server shuts down in {event.draining.grace_s:g} s: end the episode")
            elif event.HasField("policy_changed"):
                self._log(f"the next episode uses policy {event.policy_changed.policy_version}")

    def _stop(self, by: str, reason: str) -> None:
        who = f"{by or 'unknown user'} on the policy server"
        self._node.get_logger().error(f"emergency stop by {who}: {reason}")
        self._topic.publish(Bool(data=True))
        self._service.call_async(EmergencyStop.Request(source=who, reason=reason))

    def _log(self, words: str) -> None:
        self._node.get_logger().warning(words)
