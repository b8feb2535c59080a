"""Sends the whole rest of a chunk to a joint_trajectory_controller, by topic or as a goal."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from pirl_contract.schema import Alteration
from pirl_ros.adapters import qos
from pirl_ros.adapters.latest_goal import GoalOutcome, LatestGoalClient, control_action
from pirl_ros.control.action_mapping import ArmCommand
from pirl_ros.control.kinematics import Array
from pirl_ros.control.lookahead import Ahead
from pirl_ros.messages import controller_messages
from pirl_ros.profile.profile import Profile

_SAME_RAD = 1e-6
_SOON = 3
"""actions of a new chunk that are sent at once, beyond those that are due before a plan can begin"""
_LEAD_CYCLES = 2
"""controller cycles between a plan's arrival and its first point"""


class PlannedTrajectory:
    """Publishes on `~/planned` what a trajectory controller would be sent, and commands nothing: for dry runs.

    Stamped with the present, in the base frame: row i is due (i + 1) periods later. A late reader gets the last plan.
    """

    problem = ""
    remaining_s = 0.0

    def __init__(self, node: Any, profile: Profile) -> None:
        self._node, self._frame, self._dt_s = node, profile.base_frame, 1.0 / profile.rate_hz
        self._names = [joint.name for joint in profile.arm_joints]
        self._anew = True
        self._publisher = node.create_publisher(JointTrajectory, "~/planned", qos.LATCHED)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Publish the plan of a new chunk."""
        plan = ahead() if self._anew and command.joints is not None else None
        if plan is not None:
            self._anew = False
            self._publish(plan.positions, plan.before)
        return Alteration.NONE

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """Nothing is under way here."""

    def renew(self) -> None:
        """Publish the plan with the next command."""
        self._anew = True

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """The plan is published with its first command."""

    def release(self) -> None:
        """Publish the plan of the next driver or episode."""
        self._anew = True

    def stop(self) -> None:
        """Nothing is under way here."""

    def close(self) -> None:
        """The publisher is the node's."""

    def _publish(self, rows: Array, before: Array) -> None:
        message = controller_messages.fill_trajectory(
            JointTrajectory(), JointTrajectoryPoint, self._names, rows, before, self._dt_s, 0.0
        )
        message.header.stamp, message.header.frame_id = self._node.get_clock().now().to_msg(), self._frame
        self._publisher.publish(message)


class TrajectoryController:
    """As long as each period's command is the planned one nothing is sent again: the controller interpolates.

    The first points of a new chunk are sent when it comes, each at the time of its period in the plan being played:
    they wait neither for the next period nor until all of the chunk is planned, which that period does.

    A plan ends at rest, and the controller holds its end. Once nothing is commanded any more, a plan with rows left is
    replaced by the way to rest: the controller would play it to its end. An arm that answers each of its states, like
    the simulated one, gets each command by itself.

    As goals: a newer goal takes the place of the one being executed, also that of a stop, which is a plan too. One that
    the controller rejects or gives up is reported to `gave_up`: from then on the arm does not do what it is commanded.
    """

    def __init__(self, node: Any, profile: Profile, gave_up: Callable[[str], None]) -> None:
        self._dt_s, self._topic, self._gave_up = 1.0 / profile.rate_hz, profile.command.topic, gave_up
        self._names = [joint.name for joint in profile.arm.joints]
        self._one_by_one = profile.tick == "joint_states"
        self._lead_s = None if self._one_by_one else _LEAD_CYCLES / profile.command.controller_rate_hz
        self._planned: deque[Array] = deque()
        """rows that the controller has and that were not commanded yet"""
        self._before: Array | None = None
        self._anew = True
        self._ends_s = self._due_s = 0.0
        """when the controller is through, and when it has the newest command; monotonic"""
        self.problem = ""
        self._publisher = self._goals = None
        if profile.command.kind == "follow_joint_trajectory":
            self._goal = control_action("FollowJointTrajectory")
            self._goals = LatestGoalClient(node, self._goal, self._topic, self._on_end)
        else:
            self._publisher = node.create_publisher(JointTrajectory, self._topic, **qos.overridable(qos.COMMAND, 1))

    @property
    def remaining_s(self) -> float:
        """Until the controller is through with what it was sent."""
        return max(0.0, self._ends_s - time.monotonic())

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send the plan unless it is being played already."""
        if command.joints is None:
            self.rest(ahead)
            return Alteration.NONE
        expected = self._expected()
        self._due_s += self._dt_s
        if expected is None or np.abs(expected - command.joints).max() > _SAME_RAD:
            plan = None if self._one_by_one else ahead()
            rows = command.joints[None] if plan is None else plan.positions
            before = command.joints if plan is None else plan.before
            self._planned, self._anew = deque(rows[1:]), False
            self._due_s = time.monotonic() + self._dt_s
            self._send(rows, before)
        self._before = command.joints
        return Alteration.NONE

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """Replace what is left of the plan by the way to rest from the newest command."""
        left, newest = self._planned, self._before
        if newest is not None and left and np.abs(np.array(left) - newest).max() > _SAME_RAD:
            plan = ahead()
            rows = newest[None] if plan is None else plan.positions[min(1, len(plan.positions) - 1) :]
            self._due_s = time.monotonic() + self._dt_s
            self._send(rows, newest if plan is None else plan.positions[0])
        self._planned.clear()
        self._anew = True

    def renew(self) -> None:
        """Send the plan with the next command, whatever it is."""
        self._anew = True

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """Send the first points of a new chunk, on the grid of the plan being played."""
        if self._lead_s is None or self._before is None:
            return
        plan = soon(math.ceil(self._lead_s / self._dt_s) + _SOON)
        # The newest command is due after the period that it was sent in, at most; else the grid is lost.
        if plan is None or not abs(self._due_s - time.monotonic()) <= self._dt_s:
            return
        self._planned = deque(plan.positions[1:])
        self._send(plan.positions, plan.before, self._due_s - time.monotonic())

    def release(self) -> None:
        """Nothing depends on where the arm was."""

    def stop(self) -> None:
        """Cancel the goal under way: the arm is at rest and no longer commanded."""
        if self._goals is not None:
            self._goals.cancel()
        self._before, self._anew = None, True
        self._planned.clear()

    def close(self) -> None:
        """Free what the node does not list as its own."""
        if self._goals is not None:
            self._goals.close()

    def _expected(self) -> Array | None:
        expected = self._planned.popleft() if self._planned else self._before
        return None if self._anew or self._one_by_one else expected

    def _send(self, rows: Array, before: Array, first_s: float | None = None) -> None:
        given = (JointTrajectoryPoint, self._names, rows, before, self._dt_s, self._lead_s, first_s)
        lasts_s = (len(rows) - 1) * self._dt_s + (self._dt_s if first_s is None else first_s)
        self._ends_s = time.monotonic() + max(lasts_s, self._lead_s or 0.0)
        if self._publisher is not None:
            self._publisher.publish(controller_messages.fill_trajectory(JointTrajectory(), *given))
        elif self._goals is not None and self._goals.ready:
            self._goals.send(controller_messages.fill_goal(self._goal.Goal(), *given))
            self.problem = ""
        else:
            self._fail(f"no action server or subscriber on {self._topic}: is the controller active?")

    def _on_end(self, fate: GoalOutcome, result: Any) -> None:
        if fate == "succeeded":
            return
        words = {
            "refused": "rejected a trajectory: is it active, and does it command these joints?",
            "canceled": "had its goal cancelled by another client",
            "aborted": f"aborted: {getattr(result, 'error_string', '') or getattr(result, 'error_code', '')}",
        }
        reason = f"the controller {self._topic} {words[fate]}"
        if fate == "aborted" and result.error_code == self._goal.Result.GOAL_TOLERANCE_VIOLATED:
            # It has played the plan to its end and holds, only not close enough: nothing was left undone.
            self.problem = reason
            return
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        self.problem, self._before, self._anew = reason, None, True
        self._planned.clear()
        self._gave_up(reason)
