"""Teleop commands from topics to the arm executor: joint targets, tool twists, a joystick."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState, Joy

from pirl_ros.adapters.diagnostics import ChangeLog
from pirl_ros.adapters.operator_inputs import receive_stream
from pirl_ros.adapters.parameters import declare
from pirl_ros.control.arm_executor import ArmExecutor
from pirl_ros.control.control_source import JointTarget, Joystick, TcpTwist, stale, wrong_frame
from pirl_ros.control.gripper import gripper_action
from pirl_ros.profile.profile import Profile
from pirl_ros.sensing.sensor_messages import stamp_to_ns


class TeleopTopics:
    """Receives commands at any time; they have an effect only while a human drives.

    Each must be stamped with the present time of the node's clock, and a twist be given in the base frame.
    """

    @staticmethod
    def declare(node: Any) -> None:
        """Declare the joystick's parameters."""
        declare(node, "joy_axes", [1, 0, 4], "joystick axes for tool motion along x, y, z")
        declare(node, "joy_deadman", 4, "deadman button: hold it while driving with the joystick", between=(0, 64))
        declare(node, "joy_speed", 0.1, "tool speed in m/s at full deflection", between=(0.001, 1.0))

    def __init__(self, node: Any, profile: Profile, arm: ArmExecutor, on_command: Callable[[], None]) -> None:
        """Subscribe; `on_command` is called after each command that was taken. ValueError: joy_axes are not three."""
        axes = tuple(node.get_parameter("joy_axes").value)
        if len(axes) != 3:
            raise ValueError(f"joy_axes needs three axes, got {list(axes)}")
        self._joystick = Joystick(
            axes=(axes[0], axes[1], axes[2]),
            deadman=node.get_parameter("joy_deadman").value,
            speed=node.get_parameter("joy_speed").value,
        )
        self._node, self._profile, self._arm, self._changes = node, profile, arm, ChangeLog(node)
        self._on_command = on_command
        receive_stream(node, JointState, "teleop/joint_targets", self._on_joints)
        receive_stream(node, TwistStamped, "teleop/twist", self._on_twist)
        receive_stream(node, Joy, "joy", self._on_joy)

    def _on_joints(self, message: Any) -> None:
        positions = dict(zip(message.name, message.position))
        names = [joint.name for joint in self._profile.arm_joints]
        if missing := [name for name in names if name not in positions]:
            self._changes.log(f"teleop command dropped: joint target lacks {', '.join(missing)}")
            return
        grippers = [single.gripper for single in self._profile.singles]
        openings = tuple(
            None if (at := positions.get(each.command_joint)) is None else gripper_action(each, at) for each in grippers
        )
        target = JointTarget(np.array([positions[name] for name in names], np.float64), openings)
        self._update(target, message, "teleop/joint_targets")

    def _on_twist(self, message: Any) -> None:
        linear, turn = message.twist.linear, message.twist.angular
        twist = TcpTwist(np.array([linear.x, linear.y, linear.z]), np.array([turn.x, turn.y, turn.z]))
        self._update(twist, message, "teleop/twist", wrong_frame(message.header.frame_id, self._profile.base_frame))

    def _on_joy(self, message: Any) -> None:
        twist = self._joystick.read(list(message.axes), list(message.buttons))
        if twist is not None:
            self._update(twist, message, "joy")

    def _update(self, command: JointTarget | TcpTwist, message: Any, topic: str, wrong: str = "") -> None:
        now_ns, stamp_ns = self._node.get_clock().now().nanoseconds, stamp_to_ns(message.header.stamp)
        wrong = wrong or stale(stamp_ns, now_ns, self._arm.teleop_timeout_s)
        dropped = f"{topic}: {wrong}" if wrong else self._arm.update_teleop(command, time.monotonic_ns(), stamp_ns)
        self._changes.log(f"teleop command dropped: {dropped}" if dropped else "")
        if not dropped:
            self._on_command()
