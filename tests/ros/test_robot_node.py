"""policy_node, arm_node and episode_node in one process, over a fake simulator and real gRPC: what an operator uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scripted_server import ScriptedServer, serving
from station import SLOW, Station

from pirl_contract.v1 import policy_pb2 as pb

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def shared(ros: Any, profile: Any) -> Iterator[Station]:
    probe, service = ros.Probe("/robot_node"), ScriptedServer(profile.contract)
    try:
        with serving(service) as address:
            yield Station(probe, service, address)
    finally:
        probe.close()


@pytest.fixture
def station(shared: Station) -> Iterator[Station]:
    shared.service.ends.clear()
    shared.probe.seen["episode_events"].clear()
    yield shared
    shared.press("arm_node/clear")
    shared.press("arm_node/hand_back")
    shared.probe.until(lambda: not shared.state.emergency_stop and shared.state.control_source == "policy", "not clear")


def test_a_goal_is_carried_out_and_reported(station: Station) -> None:
    from action_msgs.msg import GoalStatus

    handle = station.send(alias="candidate", speed_scale=0.5, seed=7)
    status, result = station.result(handle)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (result.outcome, result.reason, result.code) == ("success", "signal", result.NONE)
    assert result.episode_id == f"episode{len(station.service.starts)}"
    assert result.steps > 0
    assert result.path
    start = station.service.starts[-1]
    assert (start.instruction, start.alias, dict(start.metadata)) == ("push", "candidate", {"seed": "7"})
    end = station.service.ends[-1]
    assert (end.outcome, end.label_source, end.end_reason) == (pb.OUTCOME_SUCCESS, "sim", "success")
    last = station.feedback[-1]
    assert (last.policy_version, last.control_source, last.episode_id) == ("v1", "policy", result.episode_id)
    assert last.elapsed > 0
    events = [event for event in station.probe.seen["episode_events"] if event.event == event.START]
    assert events[0].speed_scale == pytest.approx(0.5)


def test_one_goal_at_a_time_and_cancel_is_a_controlled_stop(station: Station) -> None:
    from action_msgs.msg import GoalStatus

    handle = station.running()
    assert not station.send(push=SLOW).accepted
    future = handle.cancel_goal_async()
    station.probe.until(future.done, "no answer to the cancellation")
    status, result = station.result(handle)
    assert status == GoalStatus.STATUS_CANCELED
    assert (result.outcome, result.reason, result.code) == ("unlabeled", "canceled", result.CANCELED)
    station.comes_to_rest()
    assert station.service.ends[-1].end_reason == "operator"


@pytest.mark.parametrize(
    "goal", [{"instruction": ""}, {"speed_scale": 1.5}, {"speed_scale": 0.0}, {"max_duration": -1.0}]
)
def test_a_goal_that_makes_no_sense_is_rejected(station: Station, goal: dict[str, Any]) -> None:
    before = len(station.service.starts)
    assert not station.send(**goal).accepted
    assert len(station.service.starts) == before


def test_a_time_limit_is_no_fault(station: Station) -> None:
    from action_msgs.msg import GoalStatus

    status, result = station.result(station.send(push=SLOW, max_duration=1.0))
    assert (status, result.code) == (GoalStatus.STATUS_SUCCEEDED, result.TIME_LIMIT)
    assert (result.outcome, station.service.ends[-1].outcome) == ("failure", pb.OUTCOME_FAILURE)


@pytest.mark.parametrize(
    ("presses", "outcome", "discarded"),
    [(["success"], "success", False), (["failure", "undo"], "unlabeled", False), (["discard"], "discard", True)],
)
def test_the_operator_labels(station: Station, presses: list[str], outcome: str, discarded: bool) -> None:
    handle = station.running()
    for button in presses:
        assert station.press(f"episode_node/{button}").success
    _, result = station.result(handle)
    assert (result.outcome, result.reason) == (outcome, "label")
    end = station.service.ends[-1]
    assert (end.discard, end.label_source, end.end_reason) == (discarded, "operator", "operator")
    labels = [event.outcome for event in station.probe.seen["episode_events"] if event.event == event.LABEL]
    assert len(labels) == len(presses)


def test_a_label_is_kept_until_the_end_and_can_be_changed_after_it(station: Station) -> None:
    from pirl_ros.adapters.interfaces import MarkSuccess

    def mark(label: str, **fields: Any) -> Any:
        return station.probe.call(MarkSuccess, "mark_success", label=label, **fields)

    handle = station.running()
    assert mark("failure", end=False).ok
    assert mark("undo", end=False).outcome == "unlabeled"
    assert mark("failure", end=False).ok
    steps = station.feedback[-1].steps
    station.probe.until(lambda: station.feedback[-1].steps > steps + 2, "it ended with the label")
    assert station.press("episode_node/success").success
    _, result = station.result(handle)
    assert (result.outcome, station.service.ends[-1].outcome) == ("success", pb.OUTCOME_SUCCESS)
    # After the end: the last episode, or one that is named.
    assert (mark("failure", note="it fell over").outcome, mark("undo").episode_id) == ("failure", result.episode_id)
    assert mark("success", episode_id=result.episode_id).ok
    labels = [(label.episode_id, label.outcome, label.note) for label in station.service.labels[-3:]]
    values = (pb.OUTCOME_FAILURE, pb.OUTCOME_UNLABELED, pb.OUTCOME_SUCCESS)
    assert labels == list(zip([result.episode_id] * 3, values, ["it fell over", "", ""]))
    told = [event for event in station.probe.seen["episode_events"] if event.event == event.LABEL]
    assert (told[-1].episode_id, told[-1].outcome) == (result.episode_id, "success")
    assert "delete it on the server" in mark("discard").message
    assert "no episode 'nobody'" in mark("success", episode_id="nobody").message


def test_what_was_discarded_cannot_be_labelled(station: Station) -> None:
    from pirl_ros.adapters.interfaces import MarkSuccess

    station.result(station.send(record=False))
    answer = station.probe.call(MarkSuccess, "mark_success", label="success")
    assert not answer.ok
    assert "no episode" in answer.message


def test_pause_and_resume(station: Station) -> None:
    from std_srvs.srv import SetBool

    handle = station.running()
    assert station.probe.call(SetBool, "policy_node/pause", data=True).success
    station.comes_to_rest()
    asked = len(station.service.observations)
    assert station.stands()
    assert len(station.service.observations) == asked
    assert station.probe.call(SetBool, "policy_node/pause", data=False).success
    station.probe.until(lambda: len(station.service.observations) > asked + 1, "nothing is asked again")
    station.press("episode_node/discard")
    station.result(handle)


def test_what_is_not_recorded_is_discarded(station: Station) -> None:
    station.result(station.send(record=False))
    assert station.service.ends[-1].discard


@pytest.mark.parametrize("by", ["topic", "service", "button"])
def test_an_emergency_stop_latches_and_clearing_moves_nothing(station: Station, by: str) -> None:
    from action_msgs.msg import GoalStatus
    from std_msgs.msg import Bool

    from pirl_ros.adapters.interfaces import ClearEmergencyStop, EmergencyStop

    handle = station.running()
    if by == "topic":
        topic = station.probe.publisher(Bool, "emergency_stop")
        topic.publish(Bool(data=True))
    elif by == "service":
        assert station.probe.call(EmergencyStop, "emergency_stop", source="test", reason="drill").ok
    else:
        assert station.press("arm_node/stop").success
    status, result = station.result(handle)
    assert (status, result.code) == (GoalStatus.STATUS_ABORTED, result.EMERGENCY_STOP)
    assert station.state.emergency_stop
    station.comes_to_rest()
    assert not station.send(push=SLOW).accepted, "latched: no new motion"
    assert station.stands()
    if by == "topic":
        topic.publish(Bool(data=False))
        assert station.stands()
        assert station.state.emergency_stop, "a topic clears nothing"
    assert station.probe.call(ClearEmergencyStop, "clear_emergency_stop", source="test").ok
    station.probe.until(lambda: not station.state.emergency_stop, "not cleared")
    assert station.stands()


def test_a_human_takes_over_and_hands_back(station: Station, profile: Any) -> None:
    from geometry_msgs.msg import TwistStamped

    from pirl_ros.adapters.interfaces import SetControlSource

    handle = station.running()
    answer = station.probe.call(SetControlSource, "set_control_source", source="human")
    assert (answer.ok, answer.control_source) == (True, "human")
    twists = station.probe.publisher(TwistStamped, "teleop/twist")
    station.comes_to_rest()
    before = np.array(station.probe.more("joint_states", 1)[0].position)
    outcomes = station.probe.seen["step_outcomes"]
    outcomes.clear()

    def driven(frame: str = "", late_s: int = 0) -> bool:
        message = TwistStamped()
        message.header.frame_id, message.header.stamp = frame, station.probe.seen["joint_states"][-1].header.stamp
        message.header.stamp.sec -= late_s
        message.twist.linear.y = 0.1
        twists.publish(message)
        return any(outcome.source == outcome.SOURCE_HUMAN for outcome in outcomes)

    for wrong in ({"frame": "tool0_upside_down"}, {"late_s": 1}, {"late_s": -1}):
        for _ in range(8):
            assert not driven(**wrong), wrong
            station.probe.more("joint_states", 1)
    np.testing.assert_allclose(station.probe.more("joint_states", 1)[0].position, before, atol=1e-4)
    station.probe.until(lambda: driven("panda_link0"), "no step of the human is reported")
    assert np.abs(np.array(station.probe.more("joint_states", 2)[-1].position) - before).max() > 1e-4
    station.probe.until(lambda: station.feedback[-1].control_source == "human", "feedback does not say so")
    assert not station.probe.call(SetControlSource, "set_control_source", source="ghost").ok
    assert station.probe.call(SetControlSource, "set_control_source", source="policy").ok
    outcomes.clear()
    played = lambda: any(outcome.source == outcome.SOURCE_POLICY and outcome.chunk_id for outcome in outcomes)  # noqa: E731
    station.probe.until(played, "the policy does not play on")
    station.press("episode_node/discard")
    station.result(handle)
    takeovers = [e.control_source for e in station.probe.seen["episode_events"] if e.event == e.TAKEOVER]
    assert takeovers == ["human", "policy"]


def test_parameters_are_ranged_and_described(station: Station) -> None:
    from rcl_interfaces.srv import DescribeParameters

    assert station.probe.set_parameter("arm_node", "speed_scale", 0.5) == ""
    station.probe.until(lambda: station.state.speed_scale == 6.0, "not 0.5 times the profile's 12")
    assert station.probe.set_parameter("arm_node", "speed_scale", 1.5)
    assert station.probe.set_parameter("arm_node", "speed_scale", float("nan"))
    assert station.probe.set_parameter("policy_node", "timeout_s", 1.0) == ""
    assert station.probe.set_parameter("arm_node", "joy_speed", 0.05), "read at configure"
    assert station.probe.set_parameter("arm_node", "speed_scale", 1.0) == ""
    for node, name in (("arm_node", "speed_scale"), ("policy_node", "timeout_s"), ("episode_node", "undo_window_s")):
        [shown] = station.probe.call(DescribeParameters, f"{node}/describe_parameters", names=[name]).descriptors
        assert shown.description
        assert shown.floating_point_range[0].to_value > 0


def test_diagnostics_name_what_matters(station: Station, ros: Any) -> None:
    def values(node: str) -> dict[str, str]:
        statuses = [s for array in station.probe.seen["/diagnostics"] for s in array.status]
        mine = [s for s in statuses if s.name == f"{station.probe.namespace}/{node}"]
        return {entry.key: entry.value for entry in mine[-1].values} if mine else {}

    station.probe.until(lambda: "round trip ms" in values("policy_node"), "policy_node says nothing")
    station.probe.until(
        lambda: {"queue depth", "mode", "chunks dropped"} <= set(values("arm_node")), "arm_node says less"
    )
    assert values("policy_node")["policy version"] == "v1"
