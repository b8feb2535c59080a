"""Services and topics of the arm: emergency stop, clear, control source, and a button for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from pirl_contract.schema import ControlSource
from pirl_ros.adapters.interfaces import ClearEmergencyStop, EmergencyStop, SetControlSource
from pirl_ros.adapters.operator_inputs import receive_each
from pirl_ros.control.arm_executor import ArmExecutor

_SOURCES = {"policy": ControlSource.POLICY, "human": ControlSource.HUMAN, "hold": ControlSource.HOLD}


class ArmServices:
    """Services and topics over one ArmExecutor; `changed` is called after each that did something.

    They answer in every state of the node: an emergency stop is never rejected.
    """

    def __init__(self, node: Any, arm: ArmExecutor, changed: Callable[[], None]) -> None:
        self._node, self._arm, self._changed = node, arm, changed
        receive_each(node, Bool, "emergency_stop", self._on_stop)
        node.create_service(EmergencyStop, "emergency_stop", self._stop)
        node.create_service(ClearEmergencyStop, "clear_emergency_stop", self._clear)
        node.create_service(SetControlSource, "set_control_source", self._set_source)
        buttons: dict[str, Callable[[], str]] = {
            "stop": partial(self._latch, "emergency stop button pressed", "button"),
            "clear": partial(arm.clear_emergency_stop, "button"),
            "engage": partial(arm.engage, "button"),
            "takeover": partial(arm.set_control_source, ControlSource.HUMAN, "button"),
            "hand_back": partial(arm.set_control_source, ControlSource.POLICY, "button"),
        }
        for name, action in buttons.items():
            node.create_service(Trigger, f"~/{name}", partial(self._button, name, action))

    def _on_stop(self, message: Any) -> None:
        # False clears nothing: a topic is no deliberate act. A reliable publisher's message comes twice.
        if message.data and not self._arm.report.emergency_stop:
            self._latch("requested on topic emergency_stop", "topic")
            self._changed()

    def _latch(self, reason: str, source: str) -> str:
        self._arm.emergency_stop(reason, source)
        self._node.get_logger().error(f"emergency stop by {source}: {reason}")
        return ""

    def _stop(self, request: Any, response: Any) -> Any:
        self._latch(request.reason or "no reason given", request.source or "service")
        self._changed()
        response.ok = True
        return response

    def _clear(self, request: Any, response: Any) -> Any:
        response.message = self._arm.clear_emergency_stop(request.source or "service")
        response.ok = not response.message
        self._changed()
        return response

    def _set_source(self, request: Any, response: Any) -> Any:
        if request.source not in _SOURCES:
            response.message = f"source '{request.source}' is not known: use {', '.join(_SOURCES)}"
        else:
            response.message = self._arm.set_control_source(_SOURCES[request.source], "service")
        response.ok = not response.message
        response.control_source = self._arm.report.control_source
        self._changed()
        return response

    def _button(self, name: str, action: Callable[[], str], _: Any, response: Any) -> Any:
        response.message = action()
        response.success = not response.message
        self._node.get_logger().info(f"{name}: {response.message or 'done'}")
        self._changed()
        return response
