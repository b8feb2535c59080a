"""The end of a slow motion through the real node and topics: the arm plays plans, and stands soon after each end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_arm import OVERLAY, RealArm, write_profile

pytestmark = pytest.mark.ros

SPEED = 0.05
"""rad/s, at which the arm could stop within one period"""
PLAN_RAD = 0.15
"""of a plan six seconds long, less than what is left of it at its end"""
COMMANDS = [
    {"kind": "joint_trajectory", "topic": "arm_controller/joint_trajectory"},
    pytest.param(
        {"kind": "follow_joint_trajectory", "topic": "follow"},
        marks=pytest.mark.skipif(not OVERLAY.exists(), reason="control_msgs is not built: docker/build_ros.sh"),
    ),
]


def play(arm: RealArm) -> None:
    """Drive slowly, in an episode of its own, until the plan is well under way."""
    arm.episode += 1
    before = len(arm.probe.seen["step_outcomes"])
    arm.chunk(SPEED)
    arm.probe.until(lambda: len(arm.probe.seen["step_outcomes"]) > before + 8, "the chunk is not played")
    assert arm.state.mode == "playing"


def moves_on(arm: RealArm) -> float:
    """How far the arm gets from here until it stands, rad."""
    start, states = arm.joints, arm.probe.seen["joint_states"]
    still = lambda: np.ptp([state.position[:7] for state in states[-10:]], axis=0).max() < 1e-5  # noqa: E731
    arm.probe.more("joint_states", 10)
    arm.probe.until(still, "the arm does not come to rest")
    return float(np.abs(arm.joints - start).max())


@pytest.mark.parametrize("from_desired", [False, True])
def test_a_controller_that_steps_back_with_each_chunk_is_named(
    probe: Any, ros: Any, tmp_path: Path, from_desired: bool
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.node import Node

    controller = Node("arm_controller", namespace=probe.namespace)
    controller.declare_parameter("interpolate_from_desired_state", from_desired)
    probe.executor.add_node(controller)
    probe.listen(DiagnosticArray, "/diagnostics")
    RealArm(probe).start(write_profile(tmp_path / "arm.yaml"))
    said = lambda: "set interpolate_from_desired_state: true" in ros.warnings_of(probe, "arm_node")  # noqa: E731
    if from_desired:
        probe.more("/diagnostics", 6)
        assert not said()
    else:
        probe.until(said, "the setting is not named")
    controller.destroy_node()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command["kind"])
def test_a_slow_arm_stands_after_each_end_of_its_motion(probe: Any, tmp_path: Path, command: dict[str, Any]) -> None:
    from lifecycle_msgs.msg import Transition

    from pirl_ros.adapters.interfaces import EpisodeEvent

    arm = RealArm(probe, "goals")
    arm.start(write_profile(tmp_path / "arm.yaml", command=command))
    events = probe.publisher(EpisodeEvent, "episode_events")

    play(arm)
    events.publish(EpisodeEvent(event=EpisodeEvent.END, episode_id=f"e{arm.episode}"))
    arm.probe.until(lambda: arm.state.mode == "idle", "the episode does not end")
    assert moves_on(arm) < PLAN_RAD / 3, "the end of an episode"

    play(arm)
    probe.change("arm_node", Transition.TRANSITION_DEACTIVATE)
    assert moves_on(arm) < PLAN_RAD / 3, "deactivate"
    probe.change("arm_node", Transition.TRANSITION_ACTIVATE)
    probe.until(lambda: arm.state.ready, "arm_node is not active again")

    play(arm)
    node = probe.processes[-1]
    node.send_signal(signal.SIGINT)
    probe.until(lambda: node.poll() is not None, "arm_node does not end")
    assert moves_on(arm) < PLAN_RAD / 3, "Ctrl-C"

    arm.start(tmp_path / "arm.yaml")
    play(arm)
    node = probe.processes.pop()
    node.kill()
    node.communicate()
    assert moves_on(arm) > PLAN_RAD, "control: a node that was killed says nothing, and the plan is played"
    assert not arm.happened("dropped", ""), "no trajectory is one that a controller refuses"
