"""One node's entry in /diagnostics: its state, or the reason why it is idle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from pirl_contract.schema import Alteration
from pirl_ros.control.safety_report import SafetyReport


class Diagnostics:
    """Publishes one status; a reason that changed is also logged, once."""

    def __init__(self, node: Any, hardware_id: str) -> None:
        self._node, self._hardware_id = node, hardware_id
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._logged = ""

    def publish(self, reason: str, values: Mapping[str, object], running: str = "running") -> None:
        """Publish OK with `running`, or WARN with the reason and with every QoS that does not fit."""
        reason = "; ".join(filter(None, [reason, *self._node.misfits.reasons]))
        level = DiagnosticStatus.WARN if reason else DiagnosticStatus.OK
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_fully_qualified_name(),
            message=reason or running,
            hardware_id=self._hardware_id,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
        if reason and reason != self._logged:
            self._node.get_logger().warning(reason)
        self._logged = reason


def safety_values(report: SafetyReport) -> dict[str, object]:
    """Return an arm's figures for a person: what is played, and which limits were hit how often."""
    bits = [bit for bit in Alteration if bit]
    hits = {f"altered by {bit.name}".lower(): count for bit, count in zip(bits, report.alteration_counts) if count}
    return {
        "mode": report.mode.value,
        "episode": report.episode_id,
        "control source": report.control_source,
        "emergency stop": report.emergency_stop,
        "latched": report.latched,
        "queue depth": report.queue_depth,
        "action age s": f"{report.action_age_s:.3f}",
        "speed scale": report.speed_scale,
        "actions played": report.played,
        "actions altered": report.altered,
        "chunks dropped": report.dropped,
        **hits,
    }
