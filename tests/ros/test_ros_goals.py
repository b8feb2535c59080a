"""Arm and gripper commanded by goals, over processes: controllers that take, replace, refuse, abort, stall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_arm import OVERLAY, RealArm, write_profile

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(not OVERLAY.exists(), reason="the tests' control_msgs is not built: docker/build_ros.sh"),
]

FOLLOW = {"command": {"kind": "follow_joint_trajectory", "topic": "follow"}}
GRIP = {"gripper": {"kind": "gripper_command", "topic": "grip", "max_effort": 10.0}}
PARALLEL = {"gripper": {"kind": "parallel_gripper_command", "topic": "parallel", "max_effort": 10.0}}


def start(probe: Any, tmp_path: Path, *arguments: str, **changes: Any) -> RealArm:
    from diagnostic_msgs.msg import DiagnosticArray

    probe.listen(DiagnosticArray, "/diagnostics")
    arm = RealArm(probe, *(arguments or ("goals",)))
    arm.start(write_profile(tmp_path / "arm.yaml", **changes))
    return arm


def test_a_newer_chunk_takes_the_place_of_the_goal_under_way(probe: Any, tmp_path: Path) -> None:
    arm = start(probe, tmp_path, **FOLLOW)
    arm.chunk()
    first = arm.wait("goal", "follow")[0]
    assert (first["replaced"], not any(first["last"])) == (False, True), "a goal ends at rest"
    assert first["rows"] > 50, "the whole rest of the chunk"
    probe.until(lambda: np.abs(arm.joints - first["joints"]).max() > 0.05, "the arm does not follow")
    arm.chunk()
    further = lambda goal: np.abs(np.subtract(goal["end"], first["end"])).max() > 0.04  # noqa: E731
    probe.until(lambda: any(further(goal) for goal in arm.happened("goal", "follow")), "the newer chunk is not sent")
    assert all(goal["replaced"] for goal in arm.happened("goal", "follow")[1:])
    # The controller aborts what is replaced: that is its word for it and no failure.
    arm.wait("replaced", "follow")
    before = len(probe.seen["step_outcomes"])
    probe.until(lambda: len(probe.seen["step_outcomes"]) > before + 3, "it does not play on")
    assert (arm.state.mode, arm.state.latched) == ("playing", False)


@pytest.mark.parametrize(
    ("fate", "words"),
    [("abort", "the arm lags behind"), ("refuse", "refused a trajectory"), ("nobody", "nobody takes")],
)
def test_an_arm_that_does_not_obey_is_latched_and_told_nothing_more(
    probe: Any, ros: Any, tmp_path: Path, fate: str, words: str
) -> None:
    arm = start(probe, tmp_path, "goals" if fate != "nobody" else "topics", **FOLLOW)
    if fate == "refuse":
        arm.order("refuse")
    arm.chunk()
    if fate == "abort":
        arm.wait("goal", "follow")
        probe.more("joint_states", 10)
        arm.order("abort follow")
    probe.until(lambda: arm.state.latched, "not latched")
    probe.until(lambda: words in ros.warnings_of(probe, "arm_node"), "not in diagnostics")
    assert words in arm.state.reason
    probe.more("safety_state", 2)
    sent, stands = len(arm.happened("goal", "follow")), arm.joints
    probe.more("safety_state", 5)
    assert (len(arm.happened("goal", "follow")), arm.state.mode) == (sent, "stopped")
    np.testing.assert_array_equal(arm.joints, stands)
    if fate == "nobody":
        return
    arm.order("accept")
    from std_srvs.srv import Trigger

    assert probe.call(Trigger, "arm_node/engage").success
    probe.more("joint_states", 3)
    arm.chunk()
    goal = arm.wait("goal", "follow", sent + 1)[-1]
    assert np.abs(np.array(goal["joints"]) - stands).max() < 0.02, "it starts from where the arm is"


def test_deactivation_brakes_and_then_cancels(probe: Any, tmp_path: Path) -> None:
    from lifecycle_msgs.msg import State, Transition

    arm = start(probe, tmp_path, **FOLLOW)
    arm.chunk(speed=0.8)
    goal = arm.wait("goal", "follow")[0]
    probe.until(lambda: np.abs(arm.joints - goal["joints"]).max() > 0.1, "the arm does not follow")
    assert probe.change("arm_node", Transition.TRANSITION_DEACTIVATE) == State.PRIMARY_STATE_INACTIVE
    arm.wait("canceled", "follow")
    last = arm.happened("goal", "follow")[-1]
    assert last["replaced"]
    assert not any(last["last"])
    assert last["rows"] < 30, "a stop, not the rest of the chunk"
    assert probe.change("arm_node", Transition.TRANSITION_CLEANUP) == State.PRIMARY_STATE_UNCONFIGURED
    assert probe.change("arm_node", Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE


@pytest.mark.parametrize("gripper", [GRIP, PARALLEL], ids=["gripper_command", "parallel_gripper_command"])
def test_a_stalled_gripper_has_grasped_and_another_episode_asks_anew(
    probe: Any, ros: Any, tmp_path: Path, gripper: Any
) -> None:
    name = gripper["gripper"]["topic"]
    closed = -0.01 if name == "grip" else [-0.01]
    arm = start(probe, tmp_path, **gripper)
    arm.chunk(gripper=-1.0)
    [goal] = arm.wait("goal", name)
    assert goal["position"] == closed
    arm.order(f"stall {name}")
    arm.wait("stall", name)
    arm.chunk(gripper=-1.0)
    probe.more("safety_state", 10)
    assert len(arm.happened("goal", name)) == 1, "only changes are sent"
    assert "gripper" not in ros.warnings_of(probe, "arm_node")
    arm.chunk(gripper=-1.0, episode="next")
    assert arm.wait("goal", name, 2)[-1]["position"] == closed


def test_a_refused_gripper_goal_is_sent_again_and_an_aborted_one_told(probe: Any, ros: Any, tmp_path: Path) -> None:
    arm = start(probe, tmp_path, **GRIP)
    arm.order("refuse")
    arm.chunk(gripper=-1.0, length=400, speed=0.02)
    arm.wait("refused", "grip", 2)
    probe.until(lambda: "the goal was refused" in ros.warnings_of(probe, "arm_node"), "not in diagnostics")
    assert not arm.state.latched, "the arm goes on"
    arm.order("accept")
    arm.wait("goal", "grip")
    arm.order("abort grip")
    probe.until(lambda: "aborted before" in ros.warnings_of(probe, "arm_node"), "not in diagnostics")
    assert len(arm.happened("goal", "grip")) == 1, "what was tried in vain is not tried again by itself"


def test_a_takeover_releases_the_gripper_and_a_stop_leaves_it(probe: Any, tmp_path: Path) -> None:
    from std_srvs.srv import Trigger

    arm = start(probe, tmp_path, **GRIP)
    arm.chunk(gripper=-1.0)
    arm.wait("goal", "grip")
    arm.order("stall grip")
    assert probe.call(Trigger, "arm_node/takeover").success
    probe.more("safety_state", 5)
    assert len(arm.happened("goal", "grip")) == 1, "a hand that says nothing leaves it"
    assert probe.call(Trigger, "arm_node/hand_back").success
    probe.more("joint_states", 3)
    arm.chunk(gripper=-1.0)
    arm.wait("goal", "grip", 2)
    assert probe.call(Trigger, "arm_node/stop").success
    probe.until(lambda: arm.state.mode == "stopped", "not stopped")
    probe.more("safety_state", 5)
    assert len(arm.happened("goal", "grip")) == 2
