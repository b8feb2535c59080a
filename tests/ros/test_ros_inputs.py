"""Whatever QoS people and foreign nodes publish with, they are received; what cannot be is named. And dry runs.

The robot is in a dry run, so that its steps show that mark; what it does is otherwise that of any robot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scripted_server import ScriptedServer, serving
from station import Station

from pirl_contract.schema import Alteration
from pirl_contract.v1 import policy_pb2 as pb

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def shared(ros: Any, profile: Any) -> Iterator[Station]:
    probe, service = ros.Probe("/inputs"), ScriptedServer(profile.contract)
    try:
        with serving(service) as address:
            yield Station(probe, service, address, dry_run=True)
    finally:
        probe.close()


@pytest.fixture
def station(shared: Station) -> Iterator[Station]:
    shared.service.ends.clear()
    yield shared
    if shared.state.emergency_stop:
        shared.press("arm_node/clear")
        shared.probe.until(lambda: not shared.state.emergency_stop, "not clear")


def best_effort() -> Any:
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def repeat(station: Station, publisher: Any, message: Any, done: Callable[[], bool], what: str) -> None:
    """Publish a message, or what makes one, until it shows: best effort may lose one."""

    def shows() -> bool:
        publisher.publish(message() if callable(message) else message)
        return done()

    station.probe.until(shows, what)


def end(station: Station, handle: Any) -> Any:
    station.press("episode_node/failure")
    return station.result(handle)[1]


def test_a_dry_run_is_marked_from_the_start_and_on_each_step(station: Station) -> None:
    from trajectory_msgs.msg import JointTrajectory
    from visualization_msgs.msg import Marker

    from pirl_ros.adapters import qos

    station.service.outcomes.clear()
    before = station.probe.more("joint_states", 1)[0].position
    station.probe.listen(JointTrajectory, "arm_node/planned", quality=qos.LATCHED)
    station.probe.listen(Marker, "arm_node/workspace", quality=qos.LATCHED)
    handle = station.running()
    assert end(station, handle).outcome == "failure"
    assert station.service.starts[-1].metadata["dry_run"] == "true"
    outcomes = station.service.outcomes
    assert len(outcomes) > 2
    assert all(outcome.alterations & Alteration.DRY_RUN for outcome in outcomes)
    assert np.ptp([outcome.executed[0] for outcome in outcomes]) < 1e-6 < abs(outcomes[0].executed[0]), "it computes on"
    np.testing.assert_array_equal(station.probe.more("joint_states", 2)[-1].position, before)
    planned = station.probe.seen["arm_node/planned"]
    assert planned, "what would have been commanded is shown"
    np.testing.assert_allclose(planned[0].points[0].positions, before[:7], atol=0.1)
    station.probe.until(lambda: bool(station.probe.seen["arm_node/workspace"]), "no workspace")
    assert station.state.header.stamp == station.state.stamp
    assert station.state.header.frame_id == planned[0].header.frame_id == "panda_link0"


def test_a_best_effort_emergency_stop_is_received(station: Station) -> None:
    from std_msgs.msg import Bool

    handle = station.running()
    button = station.probe.publisher(Bool, "emergency_stop", best_effort())
    repeat(station, button, Bool(data=True), lambda: station.state.emergency_stop, "no stop")
    assert station.result(handle)[1].code == station.action.Result.EMERGENCY_STOP


@pytest.mark.parametrize("topic", ["emergency_stop", "success", "policy_node/instruction"])
def test_what_is_sent_once_is_retransmitted_where_the_publisher_can(station: Station, topic: str) -> None:
    """No message is lost here: that a reliable reader stands beside the best-effort one is seen in the graph."""
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    def readers() -> set[tuple[Any, Any]]:
        found = [info.qos_profile for info in station.probe.node.get_subscriptions_info_by_topic(topic)]
        return {(quality.reliability, quality.durability) for quality in found}

    wanted = {(each, DurabilityPolicy.VOLATILE) for each in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)}
    station.probe.until(lambda: readers() >= wanted, f"the readers are {readers()}")


def test_a_best_effort_success_ends_the_episode(station: Station) -> None:
    from std_msgs.msg import Bool

    handle = station.running()
    task = station.probe.publisher(Bool, "success", best_effort())
    repeat(station, task, Bool(data=True), lambda: bool(station.service.ends), "success is not received")
    assert station.result(handle)[1].reason == "signal"
    assert station.service.ends[-1].outcome == pb.OUTCOME_SUCCESS


def test_best_effort_hands_drive_the_arm(station: Station, profile: Any) -> None:
    from geometry_msgs.msg import TwistStamped
    from sensor_msgs.msg import JointState, Joy

    handle = station.running()
    assert station.press("arm_node/takeover").success
    names = [joint.name for joint in profile.arm.joints]
    positions = station.probe.seen["joint_states"][-1].position[: len(names)]
    hands = {
        "teleop/twist": TwistStamped(),
        "joy": Joy(axes=[0.5] * 6, buttons=[1] * 8),
        "teleop/joint_targets": JointState(name=names, position=positions),
    }
    outcomes = station.probe.seen["step_outcomes"]
    for topic, message in hands.items():
        hand = station.probe.publisher(type(message), topic, best_effort())
        outcomes.clear()

        def stamped(message: Any = message) -> Any:
            message.header.stamp = station.probe.seen["joint_states"][-1].header.stamp
            return message

        driven = lambda: any(outcome.source == outcome.SOURCE_HUMAN for outcome in outcomes)  # noqa: E731
        repeat(station, hand, stamped, driven, f"{topic} does not drive")
        station.probe.node.destroy_publisher(hand)
        silent = lambda: outcomes[-1].source == outcomes[-1].SOURCE_HOLD or "no teleop command" in station.state.reason  # noqa: E731
        station.probe.until(silent, "the hand before still drives")
    assert end(station, handle).outcome == "failure"


def test_an_instruction_is_received_from_a_plain_publisher_and_from_one_before(
    probe: Any, ros: Any, profile: Any
) -> None:
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from std_msgs.msg import String

    from pirl_ros.adapters import qos
    from pirl_ros.adapters.interfaces import StartEpisode, StopEpisode

    service = ScriptedServer(profile.contract)
    before = probe.node.create_publisher(String, "policy_node/instruction", qos.LATCHED)
    before.publish(String(data="said before"))

    def used(words: str) -> bool:
        started = probe.call(StartEpisode, "start_episode")
        if started.ok:
            probe.call(StopEpisode, "stop_episode", outcome="failure", label_source="operator", reason="operator")
        return started.ok and service.starts[-1].instruction == words

    with serving(service) as address:
        probe.start("policy_node", server_address=address)
        probe.until(lambda: used("said before"), "the latched instruction is not received")
        for number, quality in enumerate((QoSProfile(depth=1), best_effort(), qos.LATCHED)):
            plain, words = probe.publisher(String, "policy_node/instruction", quality), f"said {number}"
            plain.publish(String(data=words))
            lossy = quality.reliability == ReliabilityPolicy.BEST_EFFORT

            def arrives(plain: Any = plain, words: str = words, lossy: bool = lossy) -> bool:
                if used(words):
                    return True
                if lossy:  # sent before the reader had found this publisher, it is lost
                    plain.publish(String(data=words))
                return False

            probe.until(arrives, f"not received: {quality}")
        probe.close()


def newest_reason(station: Station, node: str) -> str:
    statuses = [status for array in station.probe.seen["/diagnostics"] for status in array.status]
    return [s for s in statuses if s.name == f"{station.probe.namespace}/{node}"][-1].message


def test_what_cannot_be_received_is_named_until_it_goes(station: Station) -> None:
    from pirl_ros.adapters import qos
    from pirl_ros.adapters.interfaces import ActionChunk, StepOutcome

    node = station.probe.node
    foreign = node.create_publisher(ActionChunk, "action_chunks", best_effort())
    reader = node.create_subscription(StepOutcome, "step_outcomes", lambda message: None, qos.LATCHED)
    reasons = lambda: newest_reason(station, "arm_node")  # noqa: E731
    for words in (
        "a publisher of action_chunks has incompatible QoS (reliability)",
        "a subscription of step_outcomes has incompatible QoS (durability)",
    ):
        station.probe.until(lambda words=words: words in reasons(), f"not said: {words}")
    assert "publish reliable" in reasons()
    assert "subscribe volatile" in reasons()
    assert "emergency_stop" not in reasons(), "best effort was published there, and received"
    node.destroy_publisher(foreign)
    node.destroy_subscription(reader)
    station.probe.until(lambda: "incompatible" not in reasons(), "still said")
    assert end(station, station.running()).outcome == "failure", "no misfit stands in the way of an episode"


def test_an_episode_has_the_calibration_that_its_cameras_publish(station: Station, profile: Any) -> None:
    import json

    from sensor_msgs.msg import CameraInfo

    camera = profile.cameras[0]
    info = CameraInfo(
        width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.1, -0.2, 0.0, 0.0, 0.0]
    )
    info.header.frame_id = "base_optical_frame"
    info.k = [128.0, 0.0, 63.5, 0.0, 128.0, 63.5, 0.0, 0.0, 1.0]
    driver = station.probe.publisher(CameraInfo, "camera/base/camera_info", best_effort())

    def started() -> bool:
        driver.publish(info)
        end(station, station.running())
        return "camera_info.base" in station.service.starts[-1].metadata

    station.probe.until(started, "no calibration")
    stored = json.loads(station.service.starts[-1].metadata["camera_info.base"])
    assert (stored["k"], stored["d"]) == (list(info.k), list(info.d))
    assert (stored["frame_id"], stored["width"]) == ("base_optical_frame", camera.width)
