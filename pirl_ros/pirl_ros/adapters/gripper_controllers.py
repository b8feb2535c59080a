"""Gripper commands: targets of a joint_trajectory_controller each period, or action goals on change.

A stop or hold command leaves the gripper as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from pirl_contract.schema import Alteration, ControlSource
from pirl_ros.adapters import qos
from pirl_ros.adapters.latest_goal import GoalOutcome, LatestGoalClient, control_action
from pirl_ros.control.action_mapping import ArmCommand
from pirl_ros.control.gripper import GripperSwitch, fill_gripper_goal, gripper_action
from pirl_ros.control.lookahead import Ahead
from pirl_ros.profile.profile import Profile

_AGAIN_S = 1.0
"""pause after a goal that no server accepted"""
_KINDS = {"parallel_gripper_command": "ParallelGripperCommand", "gripper_command": "GripperCommand"}


def _means_the_gripper(command: ArmCommand) -> bool:
    return command.joints is not None and command.source != ControlSource.HOLD and command.gripper_asked[0]


class GripperPositions:
    """The finger target, one message per period, to a joint_trajectory_controller of one joint."""

    problem = ""
    remaining_s = 0.0

    def __init__(self, node: Any, profile: Profile) -> None:
        self._joint, self._period_ns = profile.gripper.command_joint, int(1e9 / profile.rate_hz)
        self._publisher = node.create_publisher(
            JointTrajectory, profile.gripper.topic, **qos.overridable(qos.COMMAND, 1)
        )

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send this period's target, if the gripper is to be touched."""
        if _means_the_gripper(command):
            point = JointTrajectoryPoint(positions=[command.gripper_m])
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(self._period_ns, 1_000_000_000)
            self._publisher.publish(JointTrajectory(joint_names=[self._joint], points=[point]))
        return Alteration.NONE

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """A target is one period ahead: the fingers stay there."""

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


class GripperGoals:
    """Goals to a gripper's action; its driver controls the speed, which a goal may limit.

    A gripper that stalls has grasped something, whether its action calls that success or an abort. A goal that was not
    accepted is sent again; an aborted one is not: `problem` reports it.
    """

    remaining_s = 0.0

    def __init__(self, node: Any, profile: Profile) -> None:
        self._gripper, self._switch = profile.gripper, GripperSwitch(profile.gripper)
        self._goal = control_action(_KINDS[profile.gripper.kind])
        self._goals = LatestGoalClient(node, self._goal, profile.gripper.topic, self._on_end)
        self._again_s, self._velocity = 0.0, profile.gripper.velocity_limit * profile.safety.speed_scale
        self.problem = ""

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send a goal when the command has changed and settled."""
        now_s = time.monotonic()
        if not _means_the_gripper(command) or now_s < self._again_s:
            return Alteration.NONE
        position = self._switch.update(gripper_action(self._gripper, command.gripper_m), now_s)
        if position is None:
            return Alteration.NONE
        if self._goals.ready:
            self._goals.send(fill_gripper_goal(self._goal.Goal(), self._gripper, position, self._velocity))
        else:
            self._not_taken("no action server: is the controller active?")
        return Alteration.NONE

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """A grasp outlives the episode."""

    def renew(self) -> None:
        """A settling command survives a new chunk."""

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """A command acts when it comes: none is sent before its time."""

    def release(self) -> None:
        """Send the next command even if it equals the last one."""
        self._switch.release()

    def stop(self) -> None:
        """A grasp outlives the node: letting go would drop what is held."""

    def close(self) -> None:
        """Free what the node does not list as its own."""
        self._goals.close()

    def _not_taken(self, reason: str) -> None:
        self.problem = f"gripper {self._gripper.topic}: {reason}"
        self._switch.release()
        self._again_s = time.monotonic() + _AGAIN_S

    def _on_end(self, fate: GoalOutcome, result: Any) -> None:
        if fate == "refused":
            self._not_taken("the goal was rejected")
        elif fate == "succeeded" or result.stalled:
            self.problem = ""
        else:
            self.problem = f"gripper {self._gripper.topic}: the goal was {fate} before it was reached"
