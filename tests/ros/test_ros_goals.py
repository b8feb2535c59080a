"""Arm and gripper commanded by goals, over processes: controllers that take, replace, refuse, abort, stall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_arm import OVERLAY, RealArm, write_profile

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(not OVERLAY.exists(), reason="the tests' control_msgs is not built: docker/build_ros.sh"),
]

FOLLOW = {"kind": "follow_joint_trajectory", "topic": "follow"}
GRIP = {"kind": "gripper_command", "topic": "grip", "max_effort": 10.0}
PARALLEL = {"kind": "parallel_gripper_command", "topic": "parallel", "max_effort": 10.0}


def start(probe: Any, folder: Path, *arguments: str, gripper: dict[str, Any]) -> RealArm:
    from diagnostic_msgs.msg import DiagnosticArray

    probe.listen(DiagnosticArray, "/diagnostics")
    arm = RealArm(probe, *arguments)
    arm.start(write_profile(folder / "arm.yaml", command=FOLLOW, gripper=gripper))
    return arm


@pytest.fixture(scope="module")
def shared(ros: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealArm]:
    probe = ros.Probe("/goals")
    try:
        yield start(probe, tmp_path_factory.mktemp("goals"), "goals", gripper=GRIP)
    finally:
        probe.close()


@pytest.fixture
def arm(shared: RealArm) -> Iterator[RealArm]:
    """At rest, opened, in an episode of the test's own."""
    from std_srvs.srv import Trigger

    shared.order("accept")
    shared.probe.call(Trigger, "arm_node/clear")
    shared.probe.call(Trigger, "arm_node/hand_back")
    shared.probe.call(Trigger, "arm_node/engage")
    shared.up_to_date()
    shared.probe.more("joint_states", 5)
    shared.probe.seen["happened"].clear()
    shared.probe.seen["/diagnostics"].clear()
    shared.episode += 1
    yield shared
    shared.probe.call(Trigger, "arm_node/stop")
    shared.probe.until(lambda: shared.state.mode == "stopped", "it does not stop")


def test_a_newer_chunk_takes_the_place_of_the_goal_under_way(arm: RealArm) -> None:
    arm.chunk()
    first = arm.wait("goal", "follow")[0]
    assert not any(first["last"]), "a goal ends at rest"
    assert first["rows"] > 50, "the whole rest of the chunk"
    arm.probe.until(lambda: np.abs(arm.joints - first["joints"]).max() > 0.05, "the arm does not follow")
    arm.chunk()
    further = lambda goal: np.abs(np.subtract(goal["end"], first["end"])).max() > 0.04  # noqa: E731
    arm.probe.until(
        lambda: any(further(goal) for goal in arm.happened("goal", "follow")), "the newer chunk is not sent"
    )
    assert all(goal["replaced"] for goal in arm.happened("goal", "follow")[1:])
    # The controller aborts what is replaced: that is its word for it and no failure.
    arm.wait("replaced", "follow")
    before = len(arm.probe.seen["step_outcomes"])
    arm.probe.until(lambda: len(arm.probe.seen["step_outcomes"]) > before + 3, "it does not play on")
    assert (arm.state.mode, arm.state.latched) == ("playing", False)


@pytest.mark.parametrize(
    ("order", "words"), [("abort follow", "the arm lags behind"), ("refuse follow", "rejected a trajectory")]
)
def test_an_arm_that_does_not_obey_is_latched_and_told_nothing_more(
    arm: RealArm, ros: Any, order: str, words: str
) -> None:
    from std_srvs.srv import Trigger

    arm.order(order)
    arm.chunk(speed=1.0)
    arm.probe.until(lambda: arm.state.latched, "not latched")
    arm.probe.until(lambda: words in ros.warnings_of(arm.probe, "arm_node"), "not in diagnostics")
    assert words in arm.state.reason
    arm.probe.more("safety_state", 2)
    sent, stands = len(arm.happened("goal", "follow")), arm.joints
    arm.probe.more("safety_state", 5)
    assert (len(arm.happened("goal", "follow")), arm.state.mode) == (sent, "stopped")
    np.testing.assert_array_equal(arm.joints, stands)
    arm.order("accept")
    assert arm.probe.call(Trigger, "arm_node/engage").success
    arm.probe.more("joint_states", 3)
    arm.chunk(speed=0.2)
    goal = arm.wait("goal", "follow", sent + 1)[sent]
    assert np.abs(np.array(goal["joints"]) - stands).max() < 0.03, "it starts from where the arm is"


def test_a_rejected_goal_ends_the_one_before_it(arm: RealArm) -> None:
    """Otherwise the controller would carry the older plan out to its end, six seconds further on."""
    arm.chunk(speed=0.2)
    arm.wait("goal", "follow")
    start = arm.joints
    arm.probe.until(lambda: np.abs(arm.joints - start).max() > 0.02, "the arm does not follow")
    arm.order("refuse follow")
    arm.chunk(speed=0.4)
    arm.wait("refused", "follow")
    arm.wait("canceled", "follow")
    arm.probe.until(lambda: arm.state.latched, "not latched")
    arm.probe.more("joint_states", 3)
    stands = arm.joints
    arm.probe.more("joint_states", 10)
    np.testing.assert_array_equal(arm.joints, stands)


def test_without_a_controller_it_is_latched_too(probe: Any, ros: Any, tmp_path: Path) -> None:
    arm = start(probe, tmp_path, gripper=GRIP)
    arm.chunk()
    probe.until(lambda: arm.state.latched, "not latched")
    assert "no action server or subscriber on follow" in arm.state.reason


def test_deactivation_brakes_and_then_cancels(arm: RealArm) -> None:
    from lifecycle_msgs.msg import State, Transition

    arm.chunk(speed=0.8)
    goal = arm.wait("goal", "follow")[0]
    arm.probe.until(lambda: np.abs(arm.joints - goal["joints"]).max() > 0.1, "the arm does not follow")
    assert arm.probe.change("arm_node", Transition.TRANSITION_DEACTIVATE) == State.PRIMARY_STATE_INACTIVE
    arm.wait("canceled", "follow")
    last = arm.happened("goal", "follow")[-1]
    assert last["replaced"]
    assert not any(last["last"])
    assert last["rows"] < 30, "a stop, not the rest of the chunk"
    assert arm.probe.change("arm_node", Transition.TRANSITION_CLEANUP) == State.PRIMARY_STATE_UNCONFIGURED
    assert arm.probe.change("arm_node", Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    assert arm.probe.change("arm_node", Transition.TRANSITION_ACTIVATE) == State.PRIMARY_STATE_ACTIVE
    arm.ready()


def grasps_once(arm: RealArm, ros: Any, name: str, closed: Any) -> None:
    arm.chunk(gripper=-1.0)
    [goal] = arm.wait("goal", name)
    assert goal["position"] == closed
    arm.order(f"stall {name}")
    arm.wait("stall", name)
    arm.chunk(gripper=-1.0)
    arm.probe.more("safety_state", 8)
    assert len(arm.happened("goal", name)) == 1, "only changes are sent"
    assert "gripper" not in ros.warnings_of(arm.probe, "arm_node")


def test_a_stalled_gripper_has_grasped_and_another_episode_asks_anew(arm: RealArm, ros: Any) -> None:
    grasps_once(arm, ros, "grip", -0.01)
    arm.episode += 1
    arm.chunk(gripper=-1.0)
    assert arm.wait("goal", "grip", 2)[-1]["position"] == -0.01


def test_a_parallel_gripper_does_the_same(probe: Any, ros: Any, tmp_path: Path) -> None:
    grasps_once(start(probe, tmp_path, "goals", gripper=PARALLEL), ros, "parallel", [-0.01])


def test_a_refused_gripper_goal_is_sent_again_and_an_aborted_one_told(arm: RealArm, ros: Any) -> None:
    arm.order("refuse grip")
    arm.chunk(gripper=-1.0, length=400, speed=0.02)
    arm.wait("refused", "grip", 2)
    arm.probe.until(lambda: "the goal was rejected" in ros.warnings_of(arm.probe, "arm_node"), "not in diagnostics")
    assert not arm.state.latched, "the arm goes on"
    arm.order("accept")
    arm.wait("goal", "grip")
    arm.order("abort grip")
    arm.probe.until(lambda: "aborted before" in ros.warnings_of(arm.probe, "arm_node"), "not in diagnostics")
    assert len(arm.happened("goal", "grip")) == 1, "what was tried in vain is not tried again by itself"


def test_a_takeover_releases_the_gripper_and_a_stop_leaves_it(arm: RealArm) -> None:
    from std_srvs.srv import Trigger

    probe = arm.probe
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
