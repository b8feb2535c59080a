"""Quality of service with real rclpy: two nodes that do not fit say so, two that fit say nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytestmark = pytest.mark.ros


@pytest.fixture
def other(probe: Any) -> Any:
    from rclpy.node import Node

    node = Node("driver", namespace=probe.namespace)
    probe.executor.add_node(node)
    yield node
    node.destroy_node()


def streams_of(probe: Any, profile: Any, reliable: bool) -> Any:
    from pirl_ros.adapters.sensor_streams import SensorStreams

    robot = replace(profile, poses=(), cameras=(), reliable_sensors=reliable)
    return SensorStreams(probe.node, robot, cameras=True, on_message=lambda: None)


def whole_state(profile: Any) -> Any:
    from sensor_msgs.msg import JointState

    names = [joint.name for joint in profile.joints]
    return JointState(name=names, position=[0.0] * len(names), velocity=[0.0] * len(names))


def test_a_best_effort_publisher_of_a_reliable_stream_is_the_reason(probe: Any, other: Any, profile: Any) -> None:
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos

    streams = streams_of(probe, profile, reliable=True)
    assert streams.newest() == (None, "nothing received yet: joint states")
    other.create_publisher(JointState, "joint_states", qos.sensor(reliable=False))
    probe.until(lambda: "incompatible QoS" in streams.newest()[1], "the mismatch was never said")
    reason = streams.newest()[1]
    assert reason.startswith("nothing received yet: joint states; a publisher of joint_states has incompatible QoS")
    assert "(reliability)" in reason
    assert "reliable_sensors: false" in reason


def test_the_reason_goes_when_a_fitting_publisher_comes(probe: Any, other: Any, profile: Any) -> None:
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos

    streams = streams_of(probe, profile, reliable=True)
    other.create_publisher(JointState, "joint_states", qos.sensor(reliable=False))
    probe.until(lambda: "incompatible QoS" in streams.newest()[1], "the mismatch was never said")
    fitting = probe.publisher(JointState, "joint_states", qos.STATE)
    fitting.publish(whole_state(profile))
    probe.until(lambda: streams.newest()[0] is not None, "the fitting publisher was not heard")
    assert streams.newest()[1] == ""


@pytest.mark.parametrize("publisher_reliable", [True, False])
def test_a_best_effort_reader_hears_everybody(probe: Any, other: Any, profile: Any, publisher_reliable: bool) -> None:
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos

    streams = streams_of(probe, profile, reliable=False)
    publisher = other.create_publisher(JointState, "joint_states", qos.sensor(publisher_reliable))

    def heard() -> bool:
        publisher.publish(whole_state(profile))
        return streams.newest()[0] is not None

    probe.until(heard, "not heard")
    assert streams.newest()[1] == ""


def test_a_command_that_nobody_can_take_is_told(probe: Any, other: Any) -> None:
    from trajectory_msgs.msg import JointTrajectory

    from pirl_ros.adapters import qos

    told: list[str] = []
    events = qos.publisher_events("arm/joint_trajectory", told.append)
    probe.node.create_publisher(JointTrajectory, "arm/joint_trajectory", qos.command(20.0), event_callbacks=events)
    other.create_subscription(JointTrajectory, "arm/joint_trajectory", lambda message: None, qos.LATCHED)
    probe.until(lambda: bool(told), "the mismatch was never told")
    assert told[0].startswith("a subscription of arm/joint_trajectory has incompatible QoS (durability)")


def test_a_command_lives_for_two_periods() -> None:
    pytest.importorskip("rclpy", reason="rclpy is not importable: pip install 'pirl[ros]' or source an apt ROS 2")
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy

    from pirl_ros.adapters import qos

    quality = qos.command(50.0)
    assert quality.lifespan.nanoseconds == 40_000_000
    assert (quality.reliability, quality.durability) == (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
    assert (quality.history, quality.depth) == (HistoryPolicy.KEEP_LAST, 1)


@pytest.fixture
def overridden(probe: Any) -> Any:
    """Return a node of ours whose parameters override the QoS of some topics."""
    from pirl_ros.adapters.lifecycle_node import ManagedNode

    node = ManagedNode("overridden")

    def override(**values: object) -> Any:
        for name, value in values.items():
            end, _, policy = name.partition("_")
            node.declare_parameter(f"qos_overrides./joint_states.{end}.{policy}", value)
        return node

    yield override
    node.destroy_node()


def test_parameters_override_the_qos_of_the_topic_they_name_and_of_no_other(overridden: Any) -> None:
    from rclpy.qos import ReliabilityPolicy
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos

    node = overridden(publisher_reliability="best_effort", publisher_depth=7)
    node.create_publisher(JointState, "joint_states", **qos.overridable(qos.STATE))
    node.create_publisher(JointState, "other_states", qos.STATE)
    found = [node.get_publishers_info_by_topic(topic)[0].qos_profile for topic in ("joint_states", "other_states")]
    assert [each.reliability for each in found] == [ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE]
    assert (qos.STATE.reliability, qos.STATE.depth) == (ReliabilityPolicy.RELIABLE, 5)


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ({"publisher_history": "keep_all"}, "history must be keep_last"),
        ({"publisher_durability": "transient_local"}, "durability must be volatile"),
        ({"publisher_depth": 2}, "depth must be 1 to 1, got 2"),
        ({"publisher_depth": 0}, "depth"),
        ({"publisher_reliability": "sometimes"}, "reliability"),
        ({"publisher_depth": "many"}, "joint_states.publisher: "),
    ],
)
@pytest.mark.filterwarnings("ignore:A zero depth")
def test_an_override_that_a_command_can_not_have_is_rejected(overridden: Any, override: Any, why: str) -> None:
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos

    node = overridden(**override)
    with pytest.raises(ValueError, match=r"qos_overrides\./joint_states\.publisher: .*") as raised:
        node.create_publisher(JointState, "joint_states", **qos.overridable(qos.COMMAND, 1))
    assert why in str(raised.value)


def test_a_sensor_is_not_read_from_before_the_node_was_there(overridden: Any) -> None:
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos

    node = overridden(subscription_durability="transient_local")
    with pytest.raises(ValueError, match="durability must be volatile"):
        node.create_subscription(JointState, "joint_states", print, **qos.overridable(qos.STATE))


def test_an_override_that_no_topic_takes_is_named(overridden: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos

    node, said = overridden(publisher_depth=7), list[str]()
    monkeypatch.setattr(node, "get_logger", lambda: SimpleNamespace(warning=said.append))

    def configure() -> None:
        node.create_subscription(JointState, "joint_states", print, **qos.overridable(qos.STATE))

    monkeypatch.setattr(node, "configure", configure)
    node.trigger_configure()
    [sentence] = said
    assert "'qos_overrides./joint_states.publisher'" in sentence
    assert "did you mean 'qos_overrides./joint_states.subscription'?" in sentence
