"""Simulated time over processes: who gives it, how it goes on, and what the other nodes do with it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from real_arm import write_profile

pytestmark = pytest.mark.ros

PERIOD_NS = 50_000_000


def nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def listen(probe: Any) -> list[int]:
    """Start a simulated arm and an arm_node that takes its time; returns the list that /clock fills."""
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image

    from pirl_ros.adapters import qos
    from pirl_ros.adapters.interfaces import SafetyState

    probe.listen(Image, "camera/base/image", quality=qos.IMAGE)
    probe.listen(SafetyState, "safety_state", quality=qos.LATCHED)
    times: list[int] = []
    probe.node.create_subscription(Clock, "/clock", lambda m: times.append(nanoseconds(m.clock)), qos.OUTCOME)
    return times


def start_simulator(probe: Any) -> Any:
    return probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")


@pytest.mark.parametrize("simulated", [True, False])
def test_clock_advances_by_a_control_period_per_step_and_nodes_stamp_with_it(
    probe: Any, simulated: bool, tmp_path: Path
) -> None:
    times, images, states = listen(probe), probe.seen["camera/base/image"], probe.seen["safety_state"]
    start_simulator(probe)
    probe.start("arm_node", profile=write_profile(tmp_path / "arm.yaml"), use_sim_time=simulated)
    probe.until(lambda: len(images) > 10 and len(times) > 10, "no simulated time")
    # Until the arm has discovered the clock its time is 0.
    probe.until(lambda: bool(states) and nanoseconds(states[-1].stamp) > 0, "the arm has no time")
    told = len(states)
    probe.until(lambda: len(states) > told + 3, "the arm reports no state")
    # The picture's grey counts the steps since the reset.
    steps = [(image.data[0], nanoseconds(image.header.stamp)) for image in images]
    assert {image.header.frame_id for image in images} == {"base_optical_frame"}
    (first, began), *later = steps
    assert [stamp - began for _, stamp in later] == [(step - first) * PERIOD_NS for step, _ in later]
    assert {after - before for before, after in itertools.pairwise(times)} == {PERIOD_NS}
    # The newest may be of a step whose clock has not come here yet.
    offsets = {(nanoseconds(state.stamp) - times[0]) % PERIOD_NS for state in states[told:]}
    assert (offsets == {0}) is simulated, "stamps of the wall fall on no step, but by a chance of one in 10^7"


def test_a_reset_takes_a_period_and_time_never_goes_back(probe: Any) -> None:
    from pirl_ros.adapters.interfaces import ResetEnvironment

    times = listen(probe)
    process = start_simulator(probe)
    probe.until(lambda: len(times) > 3, "no simulated time")
    assert probe.call(ResetEnvironment, "reset_environment", seed=1).ok
    process.terminate()
    process.wait()
    before = len(times)
    start_simulator(probe)
    probe.until(lambda: len(times) > before + 3, "no simulated time after the restart")
    assert times == sorted(set(times))


def test_without_a_simulator_nobody_gives_time_and_the_watch_goes_on(probe: Any) -> None:
    times, states = listen(probe), probe.seen["safety_state"]
    probe.start("arm_node", use_sim_time=True)
    probe.until(lambda: len(states) > 5, "timers of an arm without a clock stand still")
    assert times == []
    assert probe.node.count_publishers("/clock") == 0
    assert {nanoseconds(state.stamp) for state in states} == {0}, "ROS's word for: no time yet"
