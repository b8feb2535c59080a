"""An arm with the controllers of ros2_control, as a process of its own: joint states out, trajectories and goals in.

Topic `orders` (String) says what becomes of an action's goals from then on: `refuse NAME`, or `abort NAME` and
`stall NAME`, which the one under way obeys too, until `accept`. What happens is told on `happened` (String, JSON).
Arguments: namespace, then `goals` to offer the actions of control_msgs too, and `two` for two arms, each with its own
controllers and driver; names of the left and the right one's joints, topics and actions begin with that word.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from real_arm import FINGERS, NAMES, READY
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory
from trajectory_player import TrajectoryPlayer

from pirl_ros.adapters import qos


class Arm(Node):
    """Plays the newest trajectory; a goal that is cancelled, aborted or refused leaves the arm where it is."""

    def __init__(self, namespace: str, prefix: str = "") -> None:
        super().__init__(f"{prefix}arm", namespace=namespace)
        self._names, self.prefix = [prefix + name for name in NAMES], prefix
        self._fingers = [prefix + name for name in FINGERS]
        self._player, self._began_s = TrajectoryPlayer(self._names, np.array(READY)), time.monotonic()
        self._listeners = 0
        self._states = self.create_publisher(JointState, "joint_states", qos.STATE)
        self._told = self.create_publisher(String, "happened", qos.OUTCOME)
        self.create_subscription(JointTrajectory, f"{prefix}arm_controller/joint_trajectory", self.play, qos.COMMAND)
        self.create_timer(0.04, self._publish)

    @property
    def player(self) -> TrajectoryPlayer:
        """Controller and drive as they are now."""
        self._player.run_until(time.monotonic() - self._began_s)
        return self._player

    def play(self, message: Any) -> None:
        """Go on from here along a trajectory, unless it is one that a controller refuses."""
        if reason := self.player.accept(message):
            self.tell("dropped", reason=reason)

    def hold(self) -> None:
        """Stop where the arm is."""
        self.player.hold()

    def tell(self, event: str, **details: Any) -> None:
        """Publish what happened."""
        self._told.publish(String(data=json.dumps({"event": event, **details})))

    def _publish(self) -> None:
        if (listeners := self._states.get_subscription_count()) != self._listeners:
            self._listeners = listeners
            self.tell("listeners", count=listeners)
        player = self.player
        message = JointState(name=[*self._names, *self._fingers], position=[*player.position, 0.04, 0.04])
        message.velocity = [*player.velocity, 0.0, 0.0]
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)


class Goals:
    """One action: the newest goal is executed until something happens to it."""

    def __init__(self, arm: Arm, kind: Any, name: str) -> None:
        self._arm, self._kind, self.name = arm, kind, name
        self._fate: Any = None
        self._standing = ""
        ActionServer(
            arm, kind, name, self._execute, goal_callback=self._on_goal, cancel_callback=lambda _: CancelResponse.ACCEPT
        )
        arm.create_timer(0.02, self._look)
        self._handle: Any = None

    def decide(self, fate: str) -> None:
        """End the goal under way, and with an order all that come after it."""
        self._standing = fate if fate in ("abort", "stall", "refuse") else self._standing
        if fate == "refuse":
            return
        if self._fate is not None and not self._fate.done():
            self._fate.set_result(fate)

    def accept(self) -> None:
        """No order stands any more."""
        self._standing = ""

    def _on_goal(self, _: Any) -> GoalResponse:
        if self._standing == "refuse":
            self._arm.tell("refused", action=self.name)
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _look(self) -> None:
        if self._handle is not None and self._handle.is_cancel_requested:
            self.decide("canceled")

    async def _execute(self, handle: Any) -> Any:
        replaced = self._fate is not None and not self._fate.done()
        self.decide("replaced")
        self._fate, self._handle = Future(), handle
        mine, goal = self._fate, handle.request
        details: dict[str, Any] = {"replaced": replaced}
        if hasattr(goal, "trajectory"):
            self._arm.play(goal.trajectory)
            details |= {"last": list(goal.trajectory.points[-1].velocities), "rows": len(goal.trajectory.points)}
            details["joints"] = list(goal.trajectory.points[0].positions)
            details["end"] = list(goal.trajectory.points[-1].positions)
        else:
            position = goal.command.position
            details["position"] = position if isinstance(position, float) else list(position)
        self._arm.tell("goal", action=self.name, **details)
        if self._standing:
            mine.set_result(self._standing)
        fate = await mine
        self._arm.tell(fate, action=self.name)
        result = self._kind.Result()
        if fate == "canceled":
            self._arm.hold()
            handle.canceled()
        else:
            if fate == "abort":
                self._arm.hold()
            # Also a replaced one: some controllers abort it.
            handle.abort()
        if hasattr(result, "stalled"):
            result.stalled = fate == "stall"
        else:
            result.error_code, result.error_string = result.PATH_TOLERANCE_VIOLATED, "the arm lags behind"
        return result


def main() -> None:
    """Run until a signal."""
    rclpy.init()
    arms = [Arm(sys.argv[1], prefix) for prefix in (("left_", "right_") if "two" in sys.argv[2:] else ("",))]
    arm, actions = arms[0], dict[str, Goals]()
    if "goals" in sys.argv[2:]:
        from control_msgs.action import FollowJointTrajectory, GripperCommand, ParallelGripperCommand

        kinds = (("follow", FollowJointTrajectory), ("grip", GripperCommand), ("parallel", ParallelGripperCommand))
        actions = {each.prefix + name: Goals(each, kind, each.prefix + name) for each in arms for name, kind in kinds}

    def obey(order: Any) -> None:
        word, _, name = order.data.partition(" ")
        if word == "accept":
            for action in actions.values():
                action.accept()
        else:
            actions[name].decide(word)
        arm.tell("heard", order=order.data)

    arm.create_subscription(String, "orders", obey, qos.OUTCOME)
    executor = SingleThreadedExecutor()
    for each in arms:
        executor.add_node(each)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    main()
