"""Governed commands on their way to the controllers of arm and gripper, in the form that the profile names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Float64MultiArray

from pirl_ros import outputs, qos
from pirl_ros.gripper_controllers import GripperGoals, GripperPositions
from pirl_ros.kinematics import Array, Chain
from pirl_ros.look_ahead import Ahead
from pirl_ros.motion import ArmCommand
from pirl_ros.profile import Profile
from pirl_ros.trajectory_controller import TrajectoryController


class Controller(Protocol):
    """Where commands go."""

    problem: str
    """why it does not do what it was told last; empty when all is well"""

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> None:
        """Send one period's command; `ahead` gives the rest of the chunk when it is asked for."""

    def renew(self) -> None:
        """What was planned no longer holds: a new chunk came, or nothing is commanded any more."""

    def release(self) -> None:
        """Somebody else may have had it meanwhile: another episode begins, or the hands have changed."""

    def stop(self) -> None:
        """Give up what is under way; called when the arm is at rest."""

    def close(self) -> None:
        """Free everything."""


def make_controllers(node: Any, profile: Profile, dry_run: bool, gave_up: Callable[[str], None]) -> list[Controller]:
    """Return the arm's and the gripper's; none for a dry run. ValueError: a package is missing.

    `gave_up(reason)` is called when the arm's controller does not carry out what it was sent.
    """
    if dry_run:
        return []
    arm: Controller
    if profile.command.kind == "forward_position":
        arm = PositionController(node, profile)
    elif profile.command.kind == "servo_twist":
        arm = TwistController(node, profile)
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
        """To be told before each command."""
        if self._driven != (control_source, episode_id):
            self._driven = (control_source, episode_id)
            for controller in self._all:
                controller.release()

    def send(self, command: ArmCommand | None, ahead: Callable[[], Ahead | None]) -> None:
        """Send one period's command to all; None: nothing is commanded."""
        for controller in self._all:
            if command is None:
                controller.renew()
            else:
                controller.send(command, ahead)

    def renew(self) -> None:
        """A new chunk came."""
        for controller in self._all:
            controller.renew()

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

    def release(self) -> None:
        """Nothing is remembered here."""

    def stop(self) -> None:
        """Nothing is under way here."""

    def close(self) -> None:
        """The publisher is the node's."""


class TwistController:
    """The tool centre's twist, one message per period, to MoveIt Servo."""

    problem = ""

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

    def release(self) -> None:
        """Nothing is remembered here."""

    def stop(self) -> None:
        """Nothing is under way here."""

    def close(self) -> None:
        """The publisher is the node's."""
