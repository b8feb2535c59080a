"""Checks that a joint_trajectory_controller interpolates a new chunk from its desired state."""

from __future__ import annotations

from functools import partial
from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters

from pirl_ros.profile.profile import Profile

# The second is Humble's name of the first.
_SETTINGS = ("interpolate_from_desired_state", "open_loop_control")
_ACTIONS = ("joint_trajectory", "follow_joint_trajectory")


class ControllerSettings:
    """Asks once the controller's parameters can be read; a controller that hides them is taken to be right.

    By default a joint_trajectory_controller starts each new trajectory from the measured state: the command then steps
    back by the drive's lag with each chunk (joint_trajectory_controller, parameter interpolate_from_desired_state).
    """

    def __init__(self, node: Any, profile: Profile) -> None:
        self._node, self.problem = node, ""
        """what is set against us; empty when all is well or nothing is known"""
        self._controller, _, action = profile.command.topic.rpartition("/")
        self._client: Any = None
        if profile.tick == "timer" and self._controller and action in _ACTIONS:
            self._client = node.create_client(GetParameters, f"{self._controller}/get_parameters")

    def look(self) -> None:
        """Read the parameters, unless already done or the service is not up yet."""
        client = self._client
        if client is None or not client.service_is_ready():
            return
        self._client = None
        for name in _SETTINGS:
            # One by one: an unknown name makes rclcpp answer nothing at all.
            client.call_async(GetParameters.Request(names=[name])).add_done_callback(partial(self._answered, name))

    def _answered(self, name: str, future: Any) -> None:
        values = future.result().values
        if values and values[0].type == ParameterType.PARAMETER_BOOL and not values[0].bool_value:
            self.problem = (
                f"controller {self._controller} has {name}: false, so each new chunk steps its command back by the"
                f" drive's lag: set {name}: true"
            )
            self._node.get_logger().warning(self.problem)
