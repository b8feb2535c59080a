"""arm_node as a process; the test is the arm, state by state, and the policy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import output_of

pytestmark = pytest.mark.ros

READY = [0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4]
PERIOD_NS = 50_000_000


class Robot:
    """The arm and the policy of one test."""

    def __init__(self, probe: Any, profile: Any) -> None:
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState
        from trajectory_msgs.msg import JointTrajectory

        from pirl_ros.adapters import qos
        from pirl_ros.adapters.interfaces import ActionChunk, SafetyState, StepOutcome

        self.probe, self.profile, self.tick = probe, profile, 0
        probe.listen(JointTrajectory, profile.command.topic, profile.gripper.topic)
        probe.listen(StepOutcome, "step_outcomes")
        self.joints = probe.publisher(JointState, "joint_states")
        self.poses = [probe.publisher(PoseStamped, pose.topic) for pose in profile.poses]
        self.chunks = probe.publisher(ActionChunk, "action_chunks")
        self.commands: list[Any] = probe.seen[profile.command.topic]
        self.outcomes: list[Any] = probe.seen["step_outcomes"]
        # Two ends find each other at different times, a service later than a topic: states would grow old meanwhile.
        probe.listen(SafetyState, "safety_state", quality=qos.LATCHED)
        probe.until(lambda: probe.seen["safety_state"] and probe.seen["safety_state"][-1].ready, "the arm is not ready")
        self.settle()

    def state(self) -> None:
        """Publish the next state of the arm."""
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState

        from pirl_ros.messages.pirl_messages import ns_to_stamp

        self.tick += 1
        for publisher in self.poses:
            pose = PoseStamped()
            ns_to_stamp(self.tick * PERIOD_NS, pose.header.stamp)
            publisher.publish(pose)
        names = [joint.name for joint in self.profile.joints]
        message = JointState(name=names, position=[*READY, 0.04, 0.04], velocity=[0.0] * 9)
        ns_to_stamp(self.tick * PERIOD_NS, message.header.stamp)
        self.joints.publish(message)

    def chunk(self, sequence: int, *actions: list[float]) -> None:
        """Publish a chunk that answers the newest state, and give it time to arrive before the next one."""
        from pirl_ros.adapters.interfaces import ActionChunk
        from pirl_ros.messages.pirl_messages import ns_to_stamp

        message = ActionChunk(episode_id="e", sequence=sequence, chunk_id=f"c{sequence}", execute_horizon=len(actions))
        message.horizon, message.action_dim, message.dt = len(actions), 4, 0.05
        message.actions = [value for action in actions for value in action]
        ns_to_stamp(self.tick * PERIOD_NS, message.header.stamp)
        self.chunks.publish(message)
        self.chunks.wait_for_all_acked()
        self.settle()

    def settle(self) -> None:
        """Let the node work off what it has been sent: an answer to a service call comes after it."""
        from lifecycle_msgs.srv import GetState

        for _ in range(2):
            self.probe.call(GetState, "arm_node/get_state")


@pytest.fixture
def robot(probe: Any, profile: Any, profile_path: Path, tmp_path: Path) -> Any:
    """A profile with patience: each message counts here, however long the machine takes between two."""
    from diagnostic_msgs.msg import DiagnosticArray

    patient = tmp_path / "patient.yaml"
    patient.write_text(re.sub(r"(max_chunk_age|max_observation_age): [0-9.]+", r"\1: 600.0", profile_path.read_text()))
    probe.listen(DiagnosticArray, "/diagnostics")
    probe.start("arm_node", profile=patient, use_sim_time=True)
    return Robot(probe, profile)


@pytest.fixture
def impatient_robot(probe: Any, profile: Any) -> Any:
    """The shipped profile."""
    from diagnostic_msgs.msg import DiagnosticArray

    probe.listen(DiagnosticArray, "/diagnostics")
    probe.start("arm_node")
    return Robot(probe, profile)


def test_each_state_gets_one_command_until_the_chunk_is_played(robot: Robot, probe: Any) -> None:
    robot.state()
    robot.settle()
    assert robot.commands == [], "without a chunk nothing is commanded"
    robot.chunk(1, [0.02, 0, 0, -1.0], [0, 0.02, 0, 1.0])
    for played in (len(robot.commands) + 1, 2):
        if len(robot.commands) < played:
            robot.state()
            probe.until(lambda played=played: len(robot.commands) == played, "no command for this state")
    robot.state()
    probe.until(lambda: len(robot.outcomes) == 2, "both actions are reported")
    robot.state()
    robot.settle()
    assert len(robot.commands) == 2, "the chunk is over: the arm holds"
    assert [(outcome.chunk_id, outcome.index, outcome.alterations) for outcome in robot.outcomes] == [
        ("c1", 0, 0),
        ("c1", 1, 0),
    ]
    assert robot.outcomes[0].executed.tolist() == pytest.approx([0.02, 0, 0, -1.0])
    assert len(robot.outcomes[0].state) == 35
    assert robot.commands[0].joint_names == [joint.name for joint in robot.profile.arm.joints]
    grips = [message.points[0].positions[0] for message in probe.seen[robot.profile.gripper.topic]]
    assert grips == pytest.approx([-0.01, 0.04])


def test_nan_holds_the_last_command_and_is_reported(robot: Robot, probe: Any) -> None:
    robot.state()
    robot.chunk(1, [0.02, 0, 0, 0], [float("nan"), 0, 0, 0])
    for _ in range(3):
        robot.state()
        robot.settle()
    probe.until(lambda: len(robot.outcomes) == 2, "both actions are reported")
    held = robot.outcomes[1]
    assert (held.alterations, held.source) == (4, held.SOURCE_HOLD)
    assert np.isfinite(held.executed).all()
    first, second = (message.points[0].positions for message in robot.commands)
    assert first == second


def test_a_late_chunk_and_one_of_another_arm_are_dropped(robot: Robot, probe: Any) -> None:
    from pirl_ros.adapters.interfaces import ActionChunk

    robot.state()
    robot.chunk(5, [0.02, 0, 0, 0])
    robot.state()
    probe.until(lambda: len(robot.commands) == 1, "no command")
    robot.chunk(4, [0.05, 0, 0, 0])
    robot.chunks.publish(ActionChunk(episode_id="e", sequence=9, horizon=1, action_dim=7, actions=[0.0] * 7))
    for _ in range(3):
        robot.state()
        robot.settle()
    assert len(robot.commands) == 1


def test_the_arm_says_who_hears_it_and_whether_it_is_heard(probe: Any) -> None:
    from pirl_ros.adapters import qos
    from pirl_ros.adapters.interfaces import ActionChunk, SafetyState, StepOutcome

    probe.listen(SafetyState, "safety_state", quality=qos.LATCHED)
    probe.start("arm_node")
    states = probe.seen["safety_state"]
    probe.until(lambda: len(states) > 3, "no safety_state")
    assert (states[-1].ready, states[-1].outcome_readers, states[-1].hears_chunks) == (False, [], False)

    probe.listen(StepOutcome, "step_outcomes")
    name = probe.node.get_fully_qualified_name()
    probe.until(lambda: states[-1].ready and list(states[-1].outcome_readers) == [name], "the arm does not know us")
    assert not states[-1].hears_chunks
    probe.publisher(ActionChunk, "action_chunks")
    probe.until(lambda: states[-1].hears_chunks, "the arm does not hear us")


def test_a_silent_sensor_is_named_in_diagnostics(impatient_robot: Robot, probe: Any, ros: Any) -> None:
    probe.until(lambda: "nothing received yet: joint states" in ros.warnings_of(probe, "arm_node"), "not said")
    impatient_robot.state()
    probe.until(lambda: "stale" in ros.warnings_of(probe, "arm_node"), "not said")


def test_without_limits_it_does_not_start(probe: Any, profile_path: Any, tmp_path: Any) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(profile_path.read_text().replace("low: -2.8973, ", "", 1))
    process = probe.start("arm_node", profile=path)
    words = output_of(process, 20)[0]
    assert process.returncode == 1
    assert "'low' is missing" in words


def test_a_simulated_arms_profile_is_active_in_simulated_time_only(probe: Any, tmp_path: Any) -> None:
    from lifecycle_msgs.msg import State, Transition
    from lifecycle_msgs.srv import ChangeState, GetState
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters
    from real_arm import write_profile

    def take_real_time() -> Any:
        off = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False)
        request = [Parameter(name="use_sim_time", value=off)]
        return probe.call(SetParameters, "arm_node/set_parameters", parameters=request).results[0]

    refused = probe.start("arm_node", use_sim_time=False)
    said = output_of(refused, 20)[0]
    assert refused.returncode == 1
    for words in ("'panda_sim' is for a simulated arm", "safety.speed_scale 12", "robot:=NAME", "use_sim_time:=true"):
        assert words in said
    probe.processes.remove(refused)

    probe.start("arm_node", autostart=False)
    assert probe.change("arm_node", Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    assert take_real_time().successful
    activate = Transition(id=Transition.TRANSITION_ACTIVATE)
    assert not probe.call(ChangeState, "arm_node/change_state", transition=activate).success
    assert probe.call(GetState, "arm_node/get_state").current_state.id == State.PRIMARY_STATE_INACTIVE
    probe.processes[-1].terminate()
    output_of(probe.processes.pop(), 20)

    probe.start("arm_node")
    while probe.call(GetState, "arm_node/get_state").current_state.id != State.PRIMARY_STATE_ACTIVE:
        pass
    answer = take_real_time()
    assert not answer.successful
    assert "simulated arm" in answer.reason
    probe.processes[-1].terminate()
    output_of(probe.processes.pop(), 20)

    probe.start("arm_node", profile=write_profile(tmp_path / "real.yaml"))
    while probe.call(GetState, "arm_node/get_state").current_state.id != State.PRIMARY_STATE_ACTIVE:
        pass
    assert take_real_time().successful, "control: an arm with limits has no need of a simulation"
