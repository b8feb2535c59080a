"""The policy server killed in the middle of a motion, over processes: what the arm is told then, and how it goes on."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import patient
from real_arm import PERIOD_S, RealArm, broken_limits, commanded, write_profile
from server_process import free_port, kill, serve

from pirl_contract.schema import Alteration

pytestmark = pytest.mark.ros

KILLS, LINK_LOSS_S, MOST_TO_BRAKE = 3, 1.0, 12


def stop(outcomes: list[Any]) -> list[Any]:
    """Return what was commanded last, from the first action on that no newer chunk had replaced in time."""
    lost = itertools.takewhile(lambda outcome: outcome.alterations & Alteration.LINK_LOSS, reversed(outcomes))
    return list(lost)[::-1]


@pytest.mark.slow
def test_a_killed_server_is_a_lawful_stop_a_latch_and_a_new_beginning(probe: Any, tmp_path: Path) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from trajectory_msgs.msg import JointTrajectory

    from pirl_ros.adapters.interfaces import StartEpisode, StopEpisode

    profile, port = write_profile(tmp_path / "arm.yaml", {"link_loss_s": LINK_LOSS_S}), free_port()
    probe.listen(DiagnosticArray, "/diagnostics")
    probe.listen(JointTrajectory, "arm_controller/joint_trajectory")
    arm, server = RealArm(probe), serve(probe, profile, port)
    address = {"server_address": f"127.0.0.1:{port}", "timeout_s": patient(0.5)}
    arm.start(profile, "robot_node", listeners=3, use_cameras=False, **address)
    outcomes, messages = probe.seen["step_outcomes"], probe.seen["arm_controller/joint_trajectory"]
    ends = []
    for number in range(KILLS):
        wanted = len(outcomes) + 8 + 3 * number
        probe.until(lambda: probe.call(StartEpisode, "start_episode", instruction="sweep").ok, "the server is not back")
        moving = lambda wanted=wanted: len(outcomes) > wanted and arm.state.mode == "playing"  # noqa: E731
        probe.until(moving, "nothing is played")
        kill(probe, server)
        probe.until(lambda: arm.state.mode == "stopped", "it does not come to rest")
        assert arm.state.latched
        assert "no chunk for" in arm.state.reason
        probe.more("safety_state", 2)
        stands, played = arm.joints, arm.state.played
        ends.append(stop(outcomes))
        server = serve(probe, profile, port)
        probe.more("safety_state", 5)
        assert (arm.state.mode, arm.state.played) == ("stopped", played), "its return moves nothing"
        np.testing.assert_array_equal(arm.joints, stands)
        probe.call(StopEpisode, "stop_episode", outcome="failure", label_source="operator", reason="fault")
    probe.until(lambda: probe.call(StartEpisode, "start_episode", instruction="sweep").ok, "the server is not back")
    before = len(outcomes)
    probe.until(lambda: len(outcomes) > before + 3 and arm.state.mode == "playing", "it does not go on")
    commands = commanded(outcomes)
    assert broken_limits(profile, commands) == {}
    # The check can fail: the same way at twice the speed.
    assert "velocity" in broken_limits(profile, commands[::6])
    for end in ends:
        steps = np.abs(np.diff([outcome.executed[:7] for outcome in end], axis=0)).max(axis=1)
        drained = sum(bool(outcome.chunk_id) for outcome in end)
        assert drained <= LINK_LOSS_S / PERIOD_S + 1, "no more of the chunk than link_loss_s"
        assert len(end) - drained <= MOST_TO_BRAKE
        assert steps[-1] < steps.max(), "it slows down"
        # A state that is late serves two periods: their steps have its stamp, and are two all the same.
        assert [o.stamp for o in end] == sorted(o.stamp for o in end)
        assert len({(o.chunk_id, o.index) for o in end}) == len(end), "each step once"
    lasts = [message.points[-1].velocities for message in messages if len(message.points) > 1]
    assert not np.any(lasts), "whatever the arm is sent ends at rest"
