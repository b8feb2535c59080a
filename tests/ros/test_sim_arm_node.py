"""sim_arm_node as a process, over a fake simulator: what a driver of a real arm would publish and accept."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import output_of

pytestmark = pytest.mark.ros


def start(probe: Any, **parameters: object) -> Any:
    return probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake", **parameters)


def send(probe: Any, publisher: Any, names: list[str], positions: list[float]) -> None:
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    publisher.publish(JointTrajectory(joint_names=names, points=[JointTrajectoryPoint(positions=positions)]))


def listen(probe: Any) -> None:
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import Bool

    probe.listen(JointState, "joint_states")
    probe.listen(Image, "camera/base/image")
    probe.listen(PoseStamped, "tcp_pose", "object_pose", "goal_pose")
    probe.listen(Bool, "success")


def test_everything_of_one_step_carries_one_stamp(probe: Any) -> None:
    listen(probe)
    start(probe)
    joints = probe.more("joint_states", 5)[-1]
    stamp = (joints.header.stamp.sec, joints.header.stamp.nanosec)
    assert joints.name[0] == "panda_joint1"
    assert joints.name[8] == "panda_finger_joint2"
    assert len(joints.position) == len(joints.velocity) == 9
    for topic in ("camera/base/image", "tcp_pose", "object_pose", "goal_pose"):
        probe.until(
            lambda topic=topic: stamp in {(m.header.stamp.sec, m.header.stamp.nanosec) for m in probe.seen[topic]},
            topic,
        )
    for topic in ("tcp_pose", "object_pose", "goal_pose"):
        assert probe.seen[topic][-1].header.frame_id == "panda_link0"
    image = probe.seen["camera/base/image"][-1]
    assert image.header.frame_id == "base_optical_frame"
    assert (image.height, image.width, image.encoding, image.step) == (64, 64, "rgb8", 192)
    assert probe.seen["goal_pose"][-1].pose.position.z == pytest.approx(0.6)
    assert probe.seen["object_pose"][-1].pose.orientation.w == 1.0
    assert not probe.seen["success"][-1].data


def test_commands_move_it_and_wrong_ones_do_not(probe: Any, profile: Any) -> None:
    from trajectory_msgs.msg import JointTrajectory

    listen(probe)
    start(probe)
    arm = probe.publisher(JointTrajectory, profile.command.topic)
    gripper = probe.publisher(JointTrajectory, profile.gripper.topic)
    before = probe.more("joint_states", 1)[-1].position
    names = [joint.name for joint in profile.arm.joints]
    target = np.array(before[:7]) + 0.2
    send(probe, arm, ["elbow"], [0.0])
    send(probe, arm, names, [float("nan")] * 7)
    assert list(probe.more("joint_states", 5)[-1].position) == list(before)
    send(probe, arm, names[::-1], target[::-1].tolist())
    send(probe, gripper, [profile.gripper.command_joint], [-0.01])
    probe.until(
        lambda: np.allclose(probe.seen["joint_states"][-1].position[:7], target, atol=1e-3), "it did not arrive"
    )
    assert probe.seen["joint_states"][-1].position[7] == pytest.approx(0.0, abs=1e-6)


def test_stepped_on_command_it_waits_for_no_clock_and_renders_what_is_not_commanded(
    probe: Any, profile: Any, profile_path: Path, tmp_path: Path
) -> None:
    from trajectory_msgs.msg import JointTrajectory

    from pirl_ros.adapters.interfaces import ResetEnvironment

    slow = tmp_path / "slow.yaml"
    slow.write_text(profile_path.read_text().replace("rate_hz: 20.0", "rate_hz: 0.01"))
    listen(probe)
    probe.start("sim_arm_node", simulator="fake_simulator:make_slow_robot", profile=slow, step_on_command=True)
    arm = probe.publisher(JointTrajectory, profile.command.topic)
    gripper = probe.publisher(JointTrajectory, profile.gripper.topic)
    names, finger = [joint.name for joint in profile.arm.joints], [profile.gripper.command_joint]
    assert probe.call(ResetEnvironment, "reset_environment", seed=0).ok
    states = probe.seen["joint_states"]
    probe.until(lambda: bool(states), "no state after the reset")
    for step in range(8):
        count, before = len(states), np.array(states[-1].position[:7])
        send(probe, arm, names, (before + 0.1).tolist())
        send(probe, gripper, finger, [0.04])
        probe.until(lambda count=count: len(states) > count, f"step {step} is not taken")
        np.testing.assert_allclose(states[-1].position[:7], before + 0.05, atol=1e-6)
    stamps = [message.header.stamp.sec for message in states]
    assert set(np.diff(stamps)) == {100}, "each step takes a period of simulated time"
    images = probe.seen["camera/base/image"]
    probe.until(
        lambda: bool(images) and images[-1].header.stamp == states[-1].header.stamp, "no image of the last state"
    )


def test_reset_puts_it_back_and_gives_the_instruction(probe: Any, profile: Any) -> None:
    from trajectory_msgs.msg import JointTrajectory

    from pirl_ros.adapters.interfaces import ResetEnvironment

    listen(probe)
    start(probe)
    arm = probe.publisher(JointTrajectory, profile.command.topic)
    home = np.array(probe.more("joint_states", 1)[-1].position)
    send(probe, arm, [joint.name for joint in profile.arm.joints], (home[:7] + 0.3).tolist())
    probe.until(lambda: probe.seen["joint_states"][-1].position[0] > home[0] + 0.1, "it did not move")
    answer = probe.call(ResetEnvironment, "reset_environment", seed=7)
    assert (answer.ok, answer.instruction) == (True, "task of seed 7")
    np.testing.assert_allclose(probe.more("joint_states", 3)[-1].position, home, atol=1e-6)


def test_two_signals_end_it_cleanly(probe: Any) -> None:
    listen(probe)
    process = start(probe)
    probe.more("joint_states", 1)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    output, _ = output_of(process, 20)
    assert process.returncode == 0
    assert "Traceback" not in output


def test_at_its_end_the_interpreter_collects_nothing_of_what_was_imported(probe: Any, tmp_path: Path) -> None:
    """With torch that takes a second, and launch ends a process by force that takes too many."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, gc\natexit.register(lambda: print('frozen', gc.get_freeze_count(), flush=True))\n"
    )
    probe.environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent), *sys.path[1:]])}
    listen(probe)
    process = start(probe)
    probe.more("joint_states", 1)
    process.send_signal(signal.SIGINT)
    [frozen] = [line for line in output_of(process, 20)[0].splitlines() if line.startswith("frozen")]
    assert int(frozen.split()[1]) > 10_000


def test_a_simulator_that_refuses_ends_the_process_with_its_reason(probe: Any) -> None:
    process = probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="juggling")
    assert "unknown task 'juggling'" in output_of(process, 20)[0]
    assert process.returncode == 1


def test_lifecycle_stops_and_restarts_it(probe: Any) -> None:
    from lifecycle_msgs.msg import State, Transition
    from lifecycle_msgs.srv import ChangeState, GetState

    def change(transition: int) -> int:
        request = Transition(id=transition)
        assert probe.call(ChangeState, "sim_arm_node/change_state", transition=request).success
        return int(probe.call(GetState, "sim_arm_node/get_state").current_state.id)

    listen(probe)
    start(probe, autostart=False)
    assert change(Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    assert change(Transition.TRANSITION_ACTIVATE) == State.PRIMARY_STATE_ACTIVE
    probe.more("joint_states", 2)
    assert change(Transition.TRANSITION_DEACTIVATE) == State.PRIMARY_STATE_INACTIVE
    assert change(Transition.TRANSITION_CLEANUP) == State.PRIMARY_STATE_UNCONFIGURED
    probe.seen["joint_states"].clear()
    assert change(Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    assert probe.seen["joint_states"] == []
    assert change(Transition.TRANSITION_ACTIVATE) == State.PRIMARY_STATE_ACTIVE
    probe.more("joint_states", 2)
