"""Plays action chunks on the arm: chunk in, governed joint commands out, one outcome reported per action."""

from __future__ import annotations

import time
from typing import Any

from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from pirl_ros import qos
from pirl_ros.arm_cycle import ArmCycle, Tick
from pirl_ros.diagnostics import Diagnostics
from pirl_ros.interfaces import ActionChunk, EpisodeEvent, StepOutcome
from pirl_ros.managed_node import ManagedNode
from pirl_ros.messages import fill_outcome, read_chunk
from pirl_ros.motion import ArmCommand
from pirl_ros.parameters import declare_profile, read_profile
from pirl_ros.running import run
from pirl_ros.subscriptions import SensorStreams


class ArmNode(ManagedNode):
    """Without chunks, with unfit ones or while inactive it sends nothing, and the controller holds the last target."""

    def __init__(self) -> None:
        super().__init__("arm_node")
        declare_profile(self)

    def configure(self) -> None:
        """Create everything from the profile. ValueError: the profile is wrong or has no limits."""
        self._profile = read_profile(self)
        self._action_dim = self._profile.contract.action_dim
        self._cycle = ArmCycle(self._profile)
        self._reason, self._counts = "", {"actions played": 0, "actions held or altered": 0, "chunks dropped": 0}
        self._diagnostics = Diagnostics(self, self._profile.robot)
        self._arm = self.create_publisher(JointTrajectory, self._profile.command.topic, qos.COMMAND)
        self._gripper = self.create_publisher(JointTrajectory, self._profile.gripper.topic, qos.COMMAND)
        self._outcomes = self.create_publisher(StepOutcome, "step_outcomes", qos.OUTCOME)
        by_state = self._profile.tick == "joint_states"
        self._answer = self._tick if by_state else _nothing
        self._streams = SensorStreams(self, self._profile, cameras=False, on_message=self._answer)
        self.create_subscription(ActionChunk, "action_chunks", self._on_chunk, qos.CHUNK)
        self.create_subscription(EpisodeEvent, "episode_events", self._on_episode, qos.OUTCOME)
        if not by_state:
            self.create_timer(1.0 / self._profile.rate_hz, self._tick)
        self.create_timer(0.5, self._diagnose)

    def _on_episode(self, event: Any) -> None:
        change = self._cycle.begin if event.event == EpisodeEvent.START else self._cycle.end
        change(event.episode_id)

    def _on_chunk(self, message: Any) -> None:
        if not self.active:
            return
        try:
            dropped = self._cycle.accept(read_chunk(message, self._action_dim))
        except ValueError as error:
            dropped = str(error)
        if dropped:
            self._counts["chunks dropped"] += 1
            self.get_logger().warning(f"chunk dropped: {dropped}")
        self._answer()

    def _tick(self) -> None:
        bundle, self._reason = self._streams.newest()
        if not self.active or bundle is None:
            return
        try:
            tick = self._cycle.tick(bundle, time.monotonic_ns())
        except ValueError as error:
            self._reason = str(error)
            return
        self._send(tick)

    def _send(self, tick: Tick) -> None:
        if tick.command is not None:
            self._count(tick.command)
            if tick.command.joints is not None:
                names = [joint.name for joint in self._profile.arm.joints]
                self._arm.publish(self._trajectory(names, tick.command.joints.tolist()))
                self._gripper.publish(self._trajectory([self._profile.gripper.command_joint], [tick.command.gripper_m]))
        if tick.outcome is not None:
            self._outcomes.publish(fill_outcome(StepOutcome(), tick.outcome))

    def _count(self, command: ArmCommand) -> None:
        self._counts["actions played"] += 1
        if command.alterations:
            self._counts["actions held or altered"] += 1
            self.get_logger().warning(f"action altered: {command.alterations!r}", throttle_duration_sec=5.0)

    def _trajectory(self, names: list[str], positions: list[float]) -> Any:
        point = JointTrajectoryPoint(positions=positions)
        point.time_from_start.nanosec = int(1e9 / self._profile.rate_hz)
        return JointTrajectory(joint_names=names, points=[point])

    def _diagnose(self) -> None:
        # Asked again: a stream that fell silent calls nothing by itself.
        _, reason = self._streams.newest()
        values = {**self._counts, "episode": self._cycle.episode_id, "active": self.active}
        self._diagnostics.publish(reason or self._reason, values)


def _nothing() -> None:
    """Messages and chunks wait for the timer."""


def main() -> None:
    """Run the node until a signal."""
    run(ArmNode)
