"""Sends limited commands to the controllers of arm and gripper, by the command kinds of the profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Float64MultiArray

from pirl_contract.schema import Alteration
from pirl_ros.adapters import qos
from pirl_ros.adapters.arm_share import ArmShare
from pirl_ros.adapters.base_controller import BaseVelocity
from pirl_ros.adapters.controller import Controller
from pirl_ros.adapters.gripper_controllers import GripperGoals, GripperPositions
from pirl_ros.adapters.trajectory_controller import PlannedTrajectory, TrajectoryController
from pirl_ros.control.action_mapping import ArmCommand
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limits import Limits
from pirl_ros.control.lookahead import Ahead
from pirl_ros.control.workspaces import joint_slices
from pirl_ros.messages import controller_messages
from pirl_ros.profile.profile import Profile

_REFUSED_AT = 1.5
"""times the speed that joints at their limits give: a governed step stays below it, finite steps included"""


def make_controllers(node: Any, profile: Profile, dry_run: bool, gave_up: Callable[[str], None]) -> list[Controller]:
    """Return those of all arms and grippers; for a dry run what only shows the plan. ValueError: a package is missing.

    `gave_up(reason)` is called when an arm's controller does not carry out what it was sent.
    """
    if dry_run:
        return [PlannedTrajectory(node, profile)]
    made: list[Controller] = []
    if profile.base is not None:
        made.append(BaseVelocity(node, profile.base, profile.rate_hz))
    if not profile.arms:
        return [*made, *_of_arm(node, profile, gave_up)]
    owns = joint_slices([len(arm.joints) for arm in profile.arms])
    for number, (single, joints) in enumerate(zip(profile.singles, owns)):
        share = ArmShare(number, joints)
        share.controllers = _of_arm(node, single, share.giving_up(gave_up))
        made.append(share)
    return made


def _of_arm(node: Any, profile: Profile, gave_up: Callable[[str], None]) -> list[Controller]:
    arm: Controller
    if profile.command.kind == "forward_position":
        arm = PositionController(node, profile)
    elif profile.command.kind == "servo_twist":
        arm = TwistController(node, profile, gave_up)
    else:
        arm = TrajectoryController(node, profile, gave_up)
    if profile.gripper.kind == "joint_trajectory":
        return [arm, GripperPositions(node, profile)]
    return [arm, GripperGoals(node, profile)]


class Controllers:
    """All controllers of an arm as one; `heed` lets them know when the arm gets another driver or another episode."""

    def __init__(self, controllers: Sequence[Controller]) -> None:
        self._all = controllers
        self._driven = ("", "")

    @property
    def problem(self) -> str:
        """What is wrong with any of them; empty when all is well."""
        return "; ".join(controller.problem for controller in self._all if controller.problem)

    def heed(self, control_source: str, episode_id: str) -> None:
        """Call before each command."""
        if self._driven != (control_source, episode_id):
            self._driven = (control_source, episode_id)
            for controller in self._all:
                controller.release()

    @property
    def remaining_s(self) -> float:
        """Until all are through with what they were sent."""
        return max((controller.remaining_s for controller in self._all), default=0.0)

    def send(self, command: ArmCommand | None, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send one period's command to all; None: nothing is commanded. Returns what had to be changed."""
        altered = Alteration.NONE
        for controller in self._all:
            if command is None:
                controller.rest(ahead)
            else:
                altered |= controller.send(command, ahead)
        return altered

    def renew(self) -> None:
        """A new chunk came."""
        for controller in self._all:
            controller.renew()

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """Take what is to come, between two periods."""
        for controller in self._all:
            controller.foresee(soon)

    def stop(self) -> None:
        """Give up what is under way."""
        for controller in self._all:
            controller.stop()

    def close(self) -> None:
        """Free everything."""
        for controller in self._all:
            controller.close()


class PositionController:
    """Joint positions, one message per period, to a forward_command_controller: it has no timeout of its own."""

    problem = ""
    remaining_s = 0.0

    def __init__(self, node: Any, profile: Profile) -> None:
        self._names = [joint.name for joint in profile.arm.joints]
        self._order = profile.command.joints
        quality = qos.overridable(qos.command(profile.rate_hz), 1)
        self._publisher = node.create_publisher(Float64MultiArray, profile.command.topic, **quality)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send this period's positions."""
        if command.joints is not None:
            self._publisher.publish(
                controller_messages.fill_positions(Float64MultiArray(), self._names, command.joints, self._order)
            )
        return Alteration.NONE

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """The controller holds the last position."""

    def renew(self) -> None:
        """Nothing is planned here."""

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """A command acts when it comes: none is sent before its time."""

    def release(self) -> None:
        """Nothing is remembered here."""

    def stop(self) -> None:
        """Nothing is under way here."""

    def close(self) -> None:
        """The publisher is the node's."""


class TwistController:
    """The tool centre's twist, one message per period, to MoveIt Servo.

    A twist leads from the command before to this one, both the governor's, so it holds nothing of where the arm was
    moved by another source. It is slowed down to the profile's speeds. One that no motion of the joints within their
    limits can give is a fault: zero is sent instead and the arm is latched.
    """

    problem = ""
    remaining_s = 0.0

    def __init__(self, node: Any, profile: Profile, gave_up: Callable[[str], None]) -> None:
        self._node, self._dt_s, self._frame, self._gave_up = node, 1.0 / profile.rate_hz, profile.command.frame, gave_up
        self._chain, self._limits = Chain.from_table(profile.kinematics), Limits.from_profile(profile)
        self._speeds = profile.command.max_linear_speed, profile.command.max_angular_speed
        self._moving = False
        quality = qos.overridable(qos.command(profile.rate_hz), 1)
        self._publisher = node.create_publisher(TwistStamped, profile.command.topic, **quality)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send the twist that leads from the command before to this one."""
        if command.joints is None:
            self.rest(ahead)
            return Alteration.NONE
        before = command.joints if command.before is None else command.before
        twist = controller_messages.tool_twist(self._chain, before, command.joints, self._dt_s)
        if (
            excess := controller_messages.twist_excess(self._chain, command.joints, twist, self._limits.velocity)
        ) > _REFUSED_AT:
            self._publish(np.zeros(6))
            self.problem = (
                f"a twist of {np.linalg.norm(twist[:3]):.2f} m/s and {np.linalg.norm(twist[3:]):.2f} rad/s is"
                f" {excess:.1f} times what the joints' velocity limits allow: not sent"
            )
            self._gave_up(self.problem)
            return Alteration.LIMIT
        slowed = controller_messages.bounded_twist(twist, *self._speeds)
        self._publish(slowed)
        return Alteration.NONE if slowed is twist else Alteration.LIMIT

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """Send zero once: a servo node continues with the last twist until its own time-out."""
        if self._moving:
            self._publish(np.zeros(6))

    def renew(self) -> None:
        """Nothing is planned here."""

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """A command acts when it comes: none is sent before its time."""

    def release(self) -> None:
        """Another driver, another course: what was wrong is over."""
        self.problem = ""

    def stop(self) -> None:
        """Nothing is under way here."""

    def close(self) -> None:
        """The publisher is the node's."""

    def _publish(self, twist: Array) -> None:
        stamp_ns = self._node.get_clock().now().nanoseconds
        self._publisher.publish(controller_messages.fill_twist(TwistStamped(), self._frame, stamp_ns, twist))
        self._moving = bool(twist.any())
