"""Whole chunks to a joint_trajectory_controller, over processes: how the motion goes on where a new chunk joins."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from real_arm import ACCELERATION, NAMES, PERIOD_S, READY, RealArm, write_profile
from trajectory_player import TrajectoryPlayer

pytestmark = pytest.mark.ros

SAMPLE_S = 0.001
BOUND = 4.0
"""Peak acceleration of the curve, in limits that the commands keep. Where their second differences swing from one limit
to the other within a period, a cubic through them peaks at three."""


def played(messages: list[Any], commands: np.ndarray) -> list[np.ndarray]:
    """Velocities [J] every millisecond, of an arm that takes each trajectory in the period of its first command."""
    starts = []
    for message in messages:
        distances = np.abs(commands - np.array(message.points[0].positions)).max(axis=1)
        assert distances.min() < 1e-5, "a trajectory begins with what is commanded"
        starts.append(int(distances.argmin()))
    assert starts == sorted(starts)
    arm, velocities = TrajectoryPlayer(NAMES, np.array(READY), cycle_s=SAMPLE_S), []
    for message, (start, end) in zip(messages, itertools.pairwise([*starts, len(commands)])):
        assert arm.accept(message) == ""
        for _ in range(round((end - start) * PERIOD_S / SAMPLE_S)):
            arm.run_until(arm.now_s + SAMPLE_S)
            velocities.append(arm.desired_velocity)
    return velocities


def bare(message: Any) -> Any:
    """The same trajectory as it would be without velocities."""
    points = [
        SimpleNamespace(positions=p.positions, velocities=[], time_from_start=p.time_from_start) for p in message.points
    ]
    return SimpleNamespace(joint_names=message.joint_names, points=points)


def test_velocity_goes_on_across_chunks(probe: Any, tmp_path: Path) -> None:
    from trajectory_msgs.msg import JointTrajectory

    probe.listen(JointTrajectory, "arm_controller/joint_trajectory")
    arm = RealArm(probe)
    arm.start(write_profile(tmp_path / "arm.yaml"))
    messages, outcomes = probe.seen["arm_controller/joint_trajectory"], probe.seen["step_outcomes"]
    for number, speed in enumerate([0.4, 0.6, 0.3, 0.5]):
        before = len(outcomes)
        arm.chunk(speed=speed, length=14 if number == 3 else 60)
        probe.until(lambda before=before: len(outcomes) > before + 8, "the chunk is not played")
    probe.until(lambda: arm.state.mode == "holding", "the last chunk does not end")
    probe.more("joint_states", 10)
    commands = np.array([outcome.executed[:7] for outcome in outcomes], np.float64)
    np.testing.assert_allclose(arm.joints, messages[-1].points[-1].positions, atol=1e-6)
    assert max(len(message.points) for message in messages) > 50, "whole chunks"
    assert len(messages) < len(commands) / 2, "and not one message per period"

    largest = BOUND * ACCELERATION * SAMPLE_S
    assert np.abs(np.diff(played(messages, commands), axis=0)).max() < largest
    naive = np.diff(played([bare(message) for message in messages], commands), axis=0)
    assert np.abs(naive).max() > 5 * largest, "or continuity would show nothing"
