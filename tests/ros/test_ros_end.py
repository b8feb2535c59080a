"""How a process ends while an arm moves: at rest first, the goal's client answered, whatever failed before."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import patient
from real_arm import RealArm, write_profile
from server_process import free_port, kill, serve

pytestmark = pytest.mark.ros

BROKEN = """
from std_msgs.msg import String
from pirl_ros.nodes.arm_node import ArmNode
from pirl_ros.adapters.lifecycle_node import ManagedNode
from pirl_ros.adapters.node_main import run

def fail(*_):
    raise RuntimeError("broken on purpose")

class Broken(ManagedNode):
    deactivate = cleanup = fail
    def __init__(self):
        super().__init__("broken")
    def configure(self):
        self.create_subscription(String, "fail", fail, 1)
    def destroy_node(self):
        fail()

run(Broken, ArmNode)
"""
FAST = 1.0
"""rad/s at which the joints are commanded"""


class Robot:
    """One arm with its controllers, the server, and the three nodes in one process."""

    def __init__(self, probe: Any, folder: Path, **safety: float) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.action import ActionClient
        from trajectory_msgs.msg import JointTrajectory

        from pirl_ros.adapters.interfaces import ExecuteInstruction

        self.probe, self.action = probe, ExecuteInstruction
        profile, port = write_profile(folder / "arm.yaml", safety), free_port()
        probe.listen(DiagnosticArray, "/diagnostics")
        probe.listen(JointTrajectory, "arm_controller/joint_trajectory")
        self.arm, self.server = RealArm(probe), serve(probe, profile, port)
        address = {"server_address": f"127.0.0.1:{port}", "timeout_s": patient(0.5)}
        self.arm.start(profile, "robot_node", listeners=3, use_cameras=False, **address)
        self.process = probe.processes[-1]
        self.goals = ActionClient(probe.node, ExecuteInstruction, "execute_instruction")
        probe.until(self.goals.server_is_ready, "no action server")

    def moves_for_a_goal(self) -> Any:
        """Send a goal; returns the future of its result once the arm moves."""
        sent = self.goals.send_goal_async(self.action.Goal(instruction="sweep"))
        self.probe.until(sent.done, "no answer to the goal")
        assert sent.result().accepted
        result = sent.result().get_result_async()
        outcomes = self.probe.seen["step_outcomes"]
        self.probe.until(lambda: len(outcomes) > 8 and self.arm.state.mode == "playing", "nothing is played")
        return result

    def interrupt(self) -> str:
        """Send SIGINT again and again until the process has ended; returns what it printed."""
        while self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.probe.executor.spin_once(timeout_sec=0.02)
        return str(self.process.communicate()[0])

    def stands(self) -> bool:
        """Whether the arm, whose controllers go on without us, stands where it is."""
        return bool(np.ptp([m.position for m in self.probe.more("joint_states", 15)], axis=0).max() < 1e-6)


@pytest.fixture
def robot(probe: Any, tmp_path: Path) -> Robot:
    return Robot(probe, tmp_path, link_loss_s=patient(1.0))


def test_a_lost_server_is_a_lost_link(robot: Robot) -> None:
    from action_msgs.msg import GoalStatus

    result = robot.moves_for_a_goal()
    kill(robot.probe, robot.server)
    robot.probe.until(result.done, "no result")
    told = result.result().result
    assert (result.result().status, told.code, told.reason) == (
        GoalStatus.STATUS_ABORTED, robot.action.Result.LINK_LOST, "link_lost",
    )  # fmt: skip
    assert "no chunk for" in told.message
    assert "not reachable" in told.message, "that it could not be stored is said as well"


def test_a_goal_is_answered_and_the_arm_at_rest_however_often_it_is_interrupted(robot: Robot) -> None:
    from action_msgs.msg import GoalStatus

    result = robot.moves_for_a_goal()
    printed = robot.interrupt()
    assert (robot.process.returncode, "Traceback" in printed) == (0, False), printed
    robot.probe.until(result.done, "its client never gets a result")
    told = result.result().result
    assert (result.result().status, told.code) == (GoalStatus.STATUS_ABORTED, robot.action.Result.NODE_LOST)
    assert told.path, "the server was told, and stored the episode"
    assert robot.stands()
    modes = [state.mode for state in robot.probe.seen["safety_state"]]
    assert modes[-1] not in ("playing", "draining", "decelerating")


def test_a_node_that_was_shut_down_before_keeps_no_other_from_its_end(robot: Robot) -> None:
    from lifecycle_msgs.msg import State, Transition

    ended = robot.probe.change("policy_node", Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert ended == State.PRIMARY_STATE_FINALIZED
    robot.arm.chunk(FAST, length=60)
    outcomes = robot.probe.seen["step_outcomes"]
    robot.probe.until(lambda: len(outcomes) > 8 and robot.arm.state.mode == "playing", "nothing is played")
    assert not robot.stands(), "or the end would show nothing"
    printed = robot.interrupt()
    assert (robot.process.returncode, "Traceback" in printed) == (0, False), printed
    assert robot.stands(), "six seconds of chunk were sent, most of it was to come"


def test_a_shutdown_by_transition_answers_the_goal_too(robot: Robot) -> None:
    from lifecycle_msgs.msg import State, Transition

    result = robot.moves_for_a_goal()
    ended = robot.probe.change("episode_node", Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert ended == State.PRIMARY_STATE_FINALIZED
    robot.probe.until(result.done, "its client never gets a result")
    assert result.result().result.code == robot.action.Result.NODE_LOST
    assert robot.process.poll() is None


def test_a_goal_that_waits_for_a_node_that_is_gone_is_answered(probe: Any) -> None:
    """Its scene is to be reset, by nobody; its result must not wait for the patience that it has."""
    from rclpy.action import ActionClient

    from pirl_ros.adapters.interfaces import ExecuteInstruction

    process = probe.start("episode_node", patience_s=500.0)
    goals = ActionClient(probe.node, ExecuteInstruction, "execute_instruction")
    probe.until(goals.server_is_ready, "no action server")
    sent = goals.send_goal_async(ExecuteInstruction.Goal(instruction="push", seed=1))
    probe.until(sent.done, "no answer to the goal")
    result = sent.result().get_result_async()
    process.send_signal(signal.SIGINT)
    probe.until(result.done, "its client never gets a result")
    assert result.result().result.code == ExecuteInstruction.Result.NODE_LOST
    assert process.wait(timeout=patient(30)) == 0


def test_a_request_that_fits_no_state_is_answered_and_ends_nothing(robot: Robot) -> None:
    from lifecycle_msgs.msg import State, Transition
    from lifecycle_msgs.srv import ChangeState

    for transition in (Transition(id=Transition.TRANSITION_ACTIVATE), Transition(id=200), Transition(label="fly")):
        for node in ("policy_node", "arm_node"):
            assert not robot.probe.call(ChangeState, f"{node}/change_state", transition=transition).success
    assert robot.process.poll() is None
    ended = robot.probe.change("policy_node", Transition.TRANSITION_DEACTIVATE)
    assert ended == State.PRIMARY_STATE_INACTIVE, "one that fits is still carried out"


def test_a_node_that_fails_in_everything_does_not_keep_the_arm_from_coming_to_rest(probe: Any, tmp_path: Path) -> None:
    from std_msgs.msg import String

    profile = write_profile(tmp_path / "arm.yaml")
    arm = RealArm(probe)
    names = ["--ros-args", "-r", f"__ns:={probe.namespace}", "-p", f"profile:={profile}"]
    process = probe.run([sys.executable, "-c", BROKEN, *names])
    arm.ready(listeners=2)
    arm.chunk(FAST, length=60)
    probe.until(lambda: len(probe.seen["step_outcomes"]) > 8 and arm.state.mode == "playing", "nothing is played")
    probe.processes.remove(process)
    probe.publisher(String, "fail").publish(String(data="now"))
    while process.poll() is None:
        probe.executor.spin_once(timeout_sec=0.02)
    printed = process.communicate()[0]
    assert process.returncode == 1
    assert printed.count("broken on purpose") >= 3, "each failure is logged"
    assert np.ptp([m.position for m in probe.more("joint_states", 15)], axis=0).max() < 1e-6
    assert arm.state.mode not in ("playing", "draining", "decelerating")
