"""Checks the settings of a controller that our commands rely on, and that are not its defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from pirl_ros.profile.profile import Profile


@dataclass(frozen=True)
class Setting:
    """One parameter of a controller."""

    name: str
    fits: Callable[[Any], bool]
    """whether a value of it fits us"""
    value: str
    """what to set"""
    otherwise: str
    """what happens with a value that does not fit"""


def wanted_settings(profile: Profile) -> tuple[Setting, ...]:
    """Return what must be set in the controller that the profile commands; empty when nothing is known of it."""
    command = profile.command
    if profile.tick != "timer" or "/" not in command.topic:
        return ()
    if command.kind == "servo_twist":
        return _of_servo(profile)
    if command.kind in ("joint_trajectory", "follow_joint_trajectory") and command.topic.endswith(f"/{command.kind}"):
        # The second is Humble's name of the first.
        names = ("interpolate_from_desired_state", "open_loop_control")
        steps = "each new chunk steps its command back by the drive's lag"
        return tuple(Setting(name, lambda value: value is not False, "true", steps) for name in names)
    return ()


def _of_servo(profile: Profile) -> tuple[Setting, ...]:
    command, period_s = profile.command, 1.0 / profile.rate_hz
    speeds = {"linear": command.max_linear_speed, "rotational": command.max_angular_speed}
    return (
        Setting(
            "moveit_servo.command_in_type",
            lambda value: value == "speed_units",
            "speed_units",
            "it takes our m/s and rad/s for parts of its own scale",
        ),
        Setting(
            "moveit_servo.incoming_command_timeout",
            lambda value: value >= 2 * period_s,
            f"{2 * period_s:g} or more",
            "it stops between two of our commands",
        ),
        *(
            Setting(
                f"moveit_servo.scale.{name}",
                partial(_at_least, speed),
                f"{speed:g} or more",
                f"it slows the arm down below command.max_{'angular' if name == 'rotational' else name}_speed",
            )
            for name, speed in speeds.items()
        ),
    )


def _at_least(limit: float, value: float) -> bool:
    return value >= limit


class ControllerSettings:
    """Asks once the controller's parameters can be read; a controller that hides them is taken to be right.

    By default a joint_trajectory_controller starts each new trajectory from the measured state: the command then steps
    back by the drive's lag with each chunk (joint_trajectory_controller, parameter interpolate_from_desired_state).
    MoveIt Servo takes a twist as unitless by default (moveit_servo, parameter command_in_type).
    """

    def __init__(self, node: Any, profile: Profile) -> None:
        self._node, self._controller = node, profile.command.topic.rpartition("/")[0]
        self._wanted, self._wrong = wanted_settings(profile), list[str]()
        self._client: Any = None
        if self._wanted:
            self._client = node.create_client(GetParameters, f"{self._controller}/get_parameters")

    @property
    def problem(self) -> str:
        """What is set against us; empty when all is well or nothing is known."""
        return "; ".join(self._wrong)

    def look(self) -> None:
        """Read the parameters, unless already done or the service is not up yet."""
        client = self._client
        if client is None or not client.service_is_ready():
            return
        self._client = None
        for setting in self._wanted:
            # One by one: an unknown name makes rclcpp answer nothing at all.
            future = client.call_async(GetParameters.Request(names=[setting.name]))
            future.add_done_callback(partial(self._answered, setting))

    def _answered(self, setting: Setting, future: Any) -> None:
        values = future.result().values
        value = parameter_value_to_python(values[0]) if values else None
        if value is not None and not setting.fits(value):
            shown = str(value).lower() if isinstance(value, bool) else value
            self._wrong.append(
                f"controller {self._controller} has {setting.name}: {shown}, so {setting.otherwise}:"
                f" set {setting.name}: {setting.value}"
            )
