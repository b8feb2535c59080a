"""One robot with its operator: the robot side in one process over a fake simulator, against a scripted server."""

from __future__ import annotations

from typing import Any

import numpy as np
from scripted_server import ScriptedServer

SLOW, QUICK = 0.001, 0.03


class Station:
    """One robot with its operator. The processes are shared by all tests of this file."""

    def __init__(self, probe: Any, service: ScriptedServer, address: str, **robot: object) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.action import ActionClient
        from sensor_msgs.msg import JointState
        from trajectory_msgs.msg import JointTrajectory

        from pirl_ros.adapters import qos
        from pirl_ros.adapters.interfaces import EpisodeEvent, ExecuteInstruction, SafetyState, StepOutcome

        self.probe, self.service, self.action = probe, service, ExecuteInstruction
        probe.listen(DiagnosticArray, "/diagnostics")
        probe.listen(JointState, "joint_states")
        probe.listen(JointTrajectory, "arm_controller/joint_trajectory")
        probe.listen(SafetyState, "safety_state", quality=qos.LATCHED)
        probe.listen(EpisodeEvent, "episode_events")
        probe.listen(StepOutcome, "step_outcomes")
        probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")
        probe.start("robot_node", server_address=address, undo_window_s=0.3, **robot)
        self.goals = ActionClient(probe.node, ExecuteInstruction, "execute_instruction")
        self.feedback: list[Any] = []
        probe.until(self.goals.server_is_ready, "no action server")
        probe.more("joint_states", 1)

    def send(self, push: float = QUICK, **goal: Any) -> Any:
        """Send a goal and return its handle."""
        self.service.push, self.feedback = push, []
        given = {"instruction": "push", "seed": 1} | goal
        future = self.goals.send_goal_async(
            self.action.Goal(**given), feedback_callback=lambda message: self.feedback.append(message.feedback)
        )
        self.probe.until(future.done, "no answer to the goal")
        return future.result()

    def result(self, handle: Any) -> tuple[int, Any]:
        """Return the goal's status and result."""
        future = handle.get_result_async()
        self.probe.until(future.done, "no result")
        return future.result().status, future.result().result

    def running(self, **goal: Any) -> Any:
        """Send a goal that goes on, and wait until the arm moves for it."""
        handle = self.send(push=SLOW, **goal)
        assert handle.accepted
        self.probe.until(lambda: any(f.phase == "running" and f.steps > 0 for f in self.feedback), "it does not run")
        return handle

    @property
    def state(self) -> Any:
        return self.probe.seen["safety_state"][-1]

    def comes_to_rest(self) -> None:
        """Wait until the joints stand still. While an episode plays they move by a milliradian per state."""
        positions = self.probe.seen["joint_states"]
        self.probe.until(lambda: np.ptp([m.position for m in positions[-4:]], axis=0).max() < 1e-4, "it does not stop")

    def stands(self) -> bool:
        """Whether the joints do not move over the next states."""
        return bool(np.ptp([message.position for message in self.probe.more("joint_states", 8)], axis=0).max() < 1e-4)

    def press(self, button: str) -> Any:
        from std_srvs.srv import Trigger

        return self.probe.call(Trigger, button)
