"""The first points of a new chunk are sent when it comes: what that changes, and what it must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_contract.schema import ControlSource
from pirl_ros.control.limit_check import violations

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="rclpy is not importable: pip install 'pirl[ros]' or source an apt ROS 2")

from planned_arm import PlannedArm, shipped  # noqa: E402

PLANNERS = ("franka", "so100")
"""whose actions do not count from the measured arm: what is planned is what each period commands"""
CYCLE_S = 0.001
BOUND = 4.0
"""peak acceleration of the curve through the commands, in limits that they keep, as in test_ros_seams.py"""


def playing(monkeypatch: Any, name: str = "franka", speed: float = 0.3) -> PlannedArm:
    arm = PlannedArm(shipped(name, "joint_trajectory"), monkeypatch, from_desired=True, cycle_s=CYCLE_S)
    arm.run(3)
    assert arm.chunk(arm.sweep(50, speed)) == ""
    arm.run(10)
    return arm


def joined(monkeypatch: Any, name: str, speeds: tuple[float, float], share: float, at_once: bool) -> PlannedArm:
    arm = playing(monkeypatch, name, speeds[0])
    assert arm.chunk_between(arm.sweep(50, speeds[1]), share, at_once) == ""
    arm.run(12)
    return arm


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("name", PLANNERS)
def test_a_plan_goes_out_when_the_chunk_comes(monkeypatch: Any, name: str, share: float) -> None:
    arm = playing(monkeypatch, name)
    before = len(arm.messages)
    assert arm.chunk_between(arm.sweep(50, 0.2), share) == ""
    assert len(arm.messages) == before + 1
    arm.run(5)
    assert len(arm.messages) == before + 2, "all of the chunk with the next period, and then what was planned"
    assert len(arm.messages[-2].points) < len(arm.messages[-1].points)
    assert not arm.refused
    late = playing(monkeypatch, name)  # the control: without it the plan waits for the period
    assert late.chunk_between(late.sweep(50, 0.2), share, at_once=False) == ""
    assert len(late.messages) == before
    late.run()
    assert len(late.messages) == before + 1


def jolt(arm: PlannedArm) -> Any:
    """[J] largest acceleration of the set-point since shortly before the chunk came, in limits of the joints."""
    speeds = np.array(arm.arm.speeds)[round(12.5 * arm.dt_s / CYCLE_S) :]
    return np.abs(np.diff(speeds, axis=0)).max(axis=0) / CYCLE_S / arm.limits.acceleration


def on_the_grid(arm: PlannedArm) -> Any:
    """[N, J] set-points one period after each command; the first came with the fourth period."""
    points = np.array(arm.arm.set_points)
    cycles = [round((number + 5) * arm.dt_s / CYCLE_S) - 1 for number in range(len(arm.commands))]
    return points[[cycle for cycle in cycles if cycle < len(points)]]


def off_the_grid(arm: PlannedArm) -> float:
    """rad that a joint moves in two and a half cycles: a controller begins a plan with the cycle after it came."""
    return float(2.5 * CYCLE_S * np.abs(np.diff(arm.commands, axis=0)).max() / arm.dt_s)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(PLANNERS), st.tuples(st.floats(0.01, 0.6), st.floats(0.01, 0.6)), st.floats(0.0, 1.0))
def test_the_governor_commands_the_same_and_the_arm_is_not_later(
    name: str, speeds: tuple[float, float], share: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        early = joined(patch, name, speeds, share, at_once=True)
        late = joined(patch, name, speeds, share, at_once=False)
    np.testing.assert_array_equal(early.commands, late.commands)
    assert not violations(np.array([early.start, *early.commands]), early.limits, early.chain)
    assert (jolt(early) <= np.maximum(BOUND, 1.1 * jolt(late))).all(), "no step of the velocity that was not there"
    # On the grid of the plan before, which is that of the commands: each is reached one period after it.
    np.testing.assert_allclose(on_the_grid(early), early.commands[: len(on_the_grid(early))], atol=off_the_grid(early))


@pytest.mark.parametrize("way", ["emergency stop", "end", "hold", "no state"])
@pytest.mark.parametrize("name", PLANNERS)
def test_a_stop_before_the_next_period_is_none_the_later(monkeypatch: Any, name: str, way: str) -> None:
    ends = []
    for at_once in (True, False):
        arm = playing(monkeypatch, name, 0.5)
        assert arm.chunk_between(arm.sweep(50, 0.5), 0.5, at_once) == ""
        count, allowed = len(arm.commands), arm.stopping_distance()
        arm.ending(way)
        assert (np.abs(arm.arm.position - arm.commands[count - 1]) < allowed + 2e-3).all()
        ends.append(np.array(arm.commands[count:]))
    np.testing.assert_array_equal(*ends)


def test_nothing_is_sent_before_its_time_while_something_else_comes_next(monkeypatch: Any) -> None:
    arm = playing(monkeypatch)
    assert arm.executor.soon(4) is not None
    arm.executor.set_control_source(ControlSource.HOLD, "test")
    assert arm.executor.soon(4) is None, "a hold comes next"
    arm = playing(monkeypatch)
    arm.executor.emergency_stop("a test", "test")
    assert arm.executor.soon(4) is None, "a stop comes next"
    arm = playing(monkeypatch)
    arm.executor.end("e")
    assert arm.executor.soon(4) is None, "the end comes next"
    arm = PlannedArm(shipped("franka", "joint_trajectory"), monkeypatch)
    arm.run(3)
    assert arm.chunk(arm.sweep(50, 0.3)) == ""
    assert arm.executor.soon(4) is None, "nothing is under way: the chunk starts a period of its own"


@pytest.mark.parametrize("share_of_limit", [0.5, 2.0])
def test_a_chunk_that_is_too_old_to_be_played_is_not_planned(monkeypatch: Any, share_of_limit: float) -> None:
    arm = playing(monkeypatch)
    observed_ns, limit_s = arm._now_ns, 0.2
    monkeypatch.setattr(
        arm.executor, "_profile", replace(arm.profile, safety=replace(arm.profile.safety, max_chunk_age=limit_s))
    )
    arm.run(round(share_of_limit * limit_s / arm.dt_s))
    now_ns, arm._now_ns = arm._now_ns, observed_ns
    assert arm.chunk(arm.sweep(200, 0.1)) == ""
    arm._now_ns = now_ns
    assert (arm.executor.soon(4) is not None) == (share_of_limit < 1)


@pytest.mark.parametrize("output", ["forward_position", "servo_twist"])
def test_a_command_that_acts_when_it_comes_waits_for_its_period(monkeypatch: Any, output: str) -> None:
    arm = PlannedArm(shipped("franka", output), monkeypatch)
    arm.run(3)
    assert arm.chunk(arm.sweep(50, 0.3)) == ""
    arm.run(10)
    before = len(arm.messages)
    assert arm.chunk_between(arm.sweep(50, 0.2), 0.5) == ""
    assert len(arm.messages) == before


def test_what_is_foreseen_changes_nothing_of_the_executor(monkeypatch: Any) -> None:
    def report(foresee: bool) -> tuple[Any, list[Any]]:
        arm = playing(monkeypatch)
        arm.chunk(arm.sweep(50, 0.2))
        for _ in range(3 if foresee else 0):
            arm.executor.soon(4)
        arm.run(20)
        return arm.executor.report, arm.commands

    seen, unseen = report(True), report(False)
    assert seen[0] == unseen[0]
    np.testing.assert_array_equal(seen[1], unseen[1])
