"""Governed commands on their way to the controllers of arm and gripper, in the form that the profile names."""

from __future__ import annotations

import importlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.action.client import ActionClient
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from pirl_ros import outputs, qos
from pirl_ros.gripper import GripperSwitch, fill_gripper_goal
from pirl_ros.kinematics import Array, Chain
from pirl_ros.look_ahead import Ahead
from pirl_ros.motion import ArmCommand
from pirl_ros.profile import Profile

_SAME_RAD = 1e-6


class Controller(Protocol):
    """Where commands go."""

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> None:
        """Send one period's command; `ahead` gives the rest of the chunk when it is asked for."""

    def renew(self) -> None:
        """What was planned no longer holds: a new chunk came, or nothing is commanded any more."""


def make_controllers(node: Any, profile: Profile, dry_run: bool) -> list[Controller]:
    """Return the arm's and the gripper's; none for a dry run. ValueError: a package is missing."""
    if dry_run:
        return []
    arm: Controller
    if profile.command.kind == "forward_position":
        arm = PositionController(node, profile)
    elif profile.command.kind == "servo_twist":
        arm = TwistController(node, profile)
    else:
        arm = TrajectoryController(node, profile)
    if profile.gripper.kind == "joint_trajectory":
        return [arm, GripperPositions(node, profile)]
    return [arm, GripperGoals(node, profile)]


class TrajectoryController:
    """The whole rest of a chunk to a joint_trajectory_controller, by topic or as a goal; ends at rest.

    As long as each period's command is the planned one nothing is sent again: the controller interpolates on its own.
    An arm that answers each of its states, like the simulated one, gets each command by itself.
    """

    def __init__(self, node: Any, profile: Profile) -> None:
        self._node, self._dt_s = node, 1.0 / profile.rate_hz
        self._names = [joint.name for joint in profile.arm.joints]
        self._one_by_one = profile.tick == "joint_states"
        self._planned: deque[Array] = deque()
        self._before: Array | None = None
        self._publisher = self._client = None
        if profile.command.kind == "follow_joint_trajectory":
            self._goal = _control_action("FollowJointTrajectory")
            self._client = ActionClient(node, self._goal, profile.command.topic)
        else:
            self._publisher = node.create_publisher(JointTrajectory, profile.command.topic, qos.COMMAND)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> None:
        """Send the plan unless it is being played already."""
        if command.joints is None:
            return
        expected = self._planned.popleft() if self._planned else None
        if expected is None or np.abs(expected - command.joints).max() > _SAME_RAD:
            plan = None if self._one_by_one else ahead()
            rows = command.joints[None] if plan is None else plan.positions
            before = command.joints if self._before is None else self._before
            self._send(rows, before)
            self._planned = deque(rows[1:])
        self._before = command.joints

    def renew(self) -> None:
        """Send the plan with the next command, whatever it is."""
        self._planned.clear()

    def _send(self, rows: Array, before: Array) -> None:
        if self._publisher is not None:
            message = JointTrajectory()
            outputs.fill_trajectory(message, JointTrajectoryPoint, self._names, rows, before, self._dt_s)
            self._publisher.publish(message)
        elif self._client is not None and self._client.server_is_ready():
            # A newer goal takes the place of the one being executed: that is the controller's own rule.
            goal = outputs.fill_goal(self._goal.Goal(), JointTrajectoryPoint, self._names, rows, before, self._dt_s)
            self._client.send_goal_async(goal)


class PositionController:
    """Joint positions, one message per period, to a forward_command_controller: it has no timeout of its own."""

    def __init__(self, node: Any, profile: Profile) -> None:
        self._names = [joint.name for joint in profile.arm.joints]
        self._order = profile.command.joints
        quality = qos.command(profile.rate_hz)
        self._publisher = node.create_publisher(Float64MultiArray, profile.command.topic, quality)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> None:
        """Send this period's positions."""
        if command.joints is not None:
            self._publisher.publish(
                outputs.fill_positions(Float64MultiArray(), self._names, command.joints, self._order)
            )

    def renew(self) -> None:
        """Nothing is planned here."""


class TwistController:
    """The tool centre's twist, one message per period, to MoveIt Servo."""

    def __init__(self, node: Any, profile: Profile) -> None:
        self._node, self._dt_s, self._frame = node, 1.0 / profile.rate_hz, profile.command.frame
        self._chain = Chain.from_table(profile.kinematics)
        self._before: Array | None = None
        self._publisher = node.create_publisher(TwistStamped, profile.command.topic, qos.command(profile.rate_hz))

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> None:
        """Send the twist that leads from the last command to this one."""
        if command.joints is None:
            return
        before = command.joints if self._before is None else self._before
        twist = outputs.tool_twist(self._chain, before, command.joints, self._dt_s)
        stamp_ns = self._node.get_clock().now().nanoseconds
        self._publisher.publish(outputs.fill_twist(TwistStamped(), self._frame, stamp_ns, twist))
        self._before = command.joints

    def renew(self) -> None:
        """Nothing is planned here."""


class GripperPositions:
    """The finger target, one message per period, to a joint_trajectory_controller of one joint."""

    def __init__(self, node: Any, profile: Profile) -> None:
        self._joint, self._period_ns = profile.gripper.command_joint, int(1e9 / profile.rate_hz)
        self._publisher = node.create_publisher(JointTrajectory, profile.gripper.topic, qos.COMMAND)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> None:
        """Send this period's target, if the gripper is to be touched."""
        if command.joints is None:
            return
        point = JointTrajectoryPoint(positions=[command.gripper_m])
        point.time_from_start.nanosec = self._period_ns
        self._publisher.publish(JointTrajectory(joint_names=[self._joint], points=[point]))

    def renew(self) -> None:
        """Nothing is planned here."""


class GripperGoals:
    """Goals to a gripper's action, for changes only."""

    def __init__(self, node: Any, profile: Profile) -> None:
        self._gripper, self._switch = profile.gripper, GripperSwitch(profile.gripper)
        kinds = {"parallel_gripper_command": "ParallelGripperCommand", "gripper_command": "GripperCommand"}
        self._goal = _control_action(kinds[profile.gripper.kind])
        self._client = ActionClient(node, self._goal, profile.gripper.topic)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> None:
        """Send a goal when the wish has changed and lasted."""
        position = self._switch.update(float(command.executed[-1]), time.monotonic())
        if position is not None:
            self._client.send_goal_async(fill_gripper_goal(self._goal.Goal(), self._gripper, position))

    def renew(self) -> None:
        """A wish outlives the chunk."""


def _control_action(name: str) -> Any:
    try:
        return getattr(importlib.import_module("control_msgs.action"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the profile commands by {name}, which needs the package control_msgs: install it, or command"
            " by topic: command.kind and gripper.kind joint_trajectory"
        ) from error
