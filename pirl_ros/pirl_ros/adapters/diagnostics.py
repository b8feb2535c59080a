"""One node's entry in /diagnostics: its state, or the reason why it is idle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from pirl_contract.schema import Alteration
from pirl_ros.control.safety_report import SafetyReport

_FIGURES = re.compile(r"\d+(\.\d+)?")


class ChangeLog:
    """Logs a reason when it changes and not again while only its figures do, as an age that grows."""

    def __init__(self, node: Any) -> None:
        self._node, self._logged = node, ("", False)

    def log(self, reason: str, error: bool = False) -> None:
        """Log `reason` as a warning or an error; '' logs nothing, and what comes after it is a change."""
        key = (_FIGURES.sub("#", reason), error)
        if reason and key != self._logged:
            # Two statements: rclpy ties a severity to the line that logs.
            if error:
                self._node.get_logger().error(reason)
            else:
                self._node.get_logger().warning(reason)
        self._logged = key


class Diagnostics:
    """Publishes one status; a reason that changed is also logged, once, and once when all is well again."""

    def __init__(self, node: Any, hardware_id: str) -> None:
        self._node, self._hardware_id = node, hardware_id
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._changes, self._ready = ChangeLog(node), False

    def publish(
        self,
        reason: str,
        values: Mapping[str, object],
        running: str = "running",
        error: bool = False,
        ready: str = "",
    ) -> None:
        """Publish OK with `running`, or the reason and every QoS that does not fit, as WARN or, for an `error`, ERROR.

        `ready` is what to log when all is well for the first time, or again after a reason; empty: not known to be.
        """
        reason = "; ".join(filter(None, [reason, *self._node.misfits.reasons]))
        level = DiagnosticStatus.OK
        if reason:
            level = DiagnosticStatus.ERROR if error else DiagnosticStatus.WARN
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
        self._changes.log(reason, error)
        if ready and not reason and not self._ready:
            self._node.get_logger().info(f"ready: {ready}")
        self._ready = not reason and (self._ready or bool(ready))


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
