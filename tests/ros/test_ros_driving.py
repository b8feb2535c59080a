"""The real arm's loop: link loss, watchdog, emergency stop, takeover, clocks. Limits are kept through all of it."""

from __future__ import annotations

import numpy as np
import pytest
from driven_arm import HOUR_NS, PERIOD_NS, READY, DrivenArm, real_profile

from pirl_contract import Alteration, ControlSource
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.profile.profile import Profile

LINK_LOSS = 15
"""periods of link_loss_s"""


@pytest.fixture
def arm(profile: Profile) -> DrivenArm:
    arm = DrivenArm(real_profile(profile))
    arm.run(3)
    assert arm.commands == [], "nobody asked for anything"
    assert arm.mode == "idle"
    arm.executor.begin("e")
    arm.run()
    return arm


def test_chunks_one_after_another_play_without_a_seam(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(20, 0.1), execute=10)
    arm.run(11)
    for _ in range(4):
        # Asked about the state after the last action, answered four periods later.
        observed = np.vstack([[*arm.commands[-1], 1.0], arm.sweep(19, 0.1)])
        arm.run(4)
        assert arm.mode == "draining"
        assert arm.chunk(observed, execute=10, age=4) == ""
        tick = arm.run(5)
        assert arm.mode == "playing"
        assert tick.command is not None
        assert tick.command.alterations == Alteration.NONE
        arm.run()
    indices = [outcome.index for outcome in arm.outcomes if outcome.chunk_id == "c3"]
    assert indices == list(range(5, 15)), "entered where the last one had got to"
    drained = [outcome for outcome in arm.outcomes if outcome.index >= 10]
    assert drained
    assert all(outcome.alterations & Alteration.LINK_LOSS for outcome in drained)
    assert arm.violations() == {}


def test_link_loss_drains_brakes_holds_and_latches(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(50), execute=5)
    arm.run(5 + LINK_LOSS)
    assert arm.mode == "draining"
    assert not arm.executor.report.latched
    arm.run(2)
    assert arm.mode == "decelerating", "within two periods of the chunk's expiry"
    arm.rest()
    report = arm.executor.report
    assert (arm.mode, report.latched) == ("stopped", True)
    assert "no chunk for 0.3" in report.reason
    assert "no chunk" in arm.chunk(arm.sweep(5)), "a late reply is discarded"
    still = arm.commands[-1]
    arm.run(50)
    np.testing.assert_array_equal(arm.commands[-1], still)
    assert arm.violations() == {}
    braking = [outcome for outcome in arm.outcomes if outcome.chunk_id == ""]
    assert braking
    assert all(o.alterations == Alteration.LINK_LOSS and o.source == ControlSource.HOLD for o in braking)


def test_after_a_latch_it_takes_an_act_and_a_fresh_observation(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(3))
    arm.run(3 + LINK_LOSS + 5)
    arm.rest()
    assert arm.executor.engage("test") == ""
    still = arm.commands[-1]
    arm.run(5)
    np.testing.assert_array_equal(arm.commands[-1], still)
    assert arm.chunk(arm.sweep(5), age=10) == ""
    arm.run()
    assert "before the arm was engaged" in arm.executor.report.reason
    arm.run(5)
    np.testing.assert_array_equal(arm.commands[-1], still)
    arm.chunk(arm.sweep(5))
    arm.run(5)
    assert (arm.commands[-1] != still).any()
    assert arm.violations() == {}


def test_a_new_episode_is_such_an_act(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(3))
    arm.run(3 + LINK_LOSS + 30)
    assert arm.executor.report.latched
    assert arm.chunk(arm.sweep(3), episode="next") != "", "a chunk alone opens nothing"
    arm.executor.begin("next")
    assert not arm.executor.report.latched


def test_a_slow_first_answer_is_no_link_loss(arm: DrivenArm) -> None:
    arm.run(200)
    assert not arm.executor.report.latched
    assert arm.commands == [], "nothing was moved: the controller holds by itself"


def test_silence_of_the_state_brakes_at_once_and_latches_at_the_watchdog(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(50))
    arm.run(10)
    arm.run(1, state=False)
    assert arm.mode == "decelerating"
    arm.run(4, state=False)
    assert not arm.executor.report.latched
    arm.run(1, state=False)
    assert arm.executor.report.latched
    assert "no state of the arm" in arm.executor.report.reason
    arm.run(30, state=False)
    assert arm.mode == "stopped"
    arm.run(10)
    assert arm.mode == "stopped", "states again: no reason to move by itself"
    assert arm.violations() == {}


def test_a_loop_that_stood_still_latches(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(50))
    arm.run(10)
    arm.now_ns += 6 * PERIOD_NS
    assert arm.executor.overdue(arm.now_ns)
    arm.run()
    assert "did not run for more than" in arm.executor.report.reason
    arm.rest()
    assert arm.mode == "stopped"
    assert arm.violations() == {}


def test_two_calls_in_one_period_play_one_action(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(50))
    arm.run(5)
    again = arm.executor.tick(arm.bundle(), arm.now_ns + PERIOD_NS // 4)
    assert again.command is None


@pytest.mark.parametrize("jump_ns", [HOUR_NS, -HOUR_NS])
def test_a_clock_that_jumps_makes_nothing_stale_or_fresh(arm: DrivenArm, jump_ns: int) -> None:
    arm.chunk(arm.sweep(60))
    arm.run(10)
    arm.clock_ns += jump_ns
    arm.run(5)
    assert arm.mode == "playing"
    assert arm.chunk(arm.sweep(60)) == ""
    arm.run(5)
    assert arm.mode == "playing"
    # An answer to an observation from before the jump, three periods ago by this host's clock.
    arm.clock_ns += jump_ns
    assert arm.chunk(arm.sweep(60), age=round(jump_ns / PERIOD_NS) + 3) == ""
    tick = arm.run()
    assert tick.command is not None
    assert not tick.command.alterations & Alteration.STALE
    # One whose stamp was never seen is as old as it could be.
    arm.chunk(arm.sweep(60), age=10_000)
    tick = arm.run()
    assert tick.command is not None
    assert tick.command.alterations & Alteration.STALE
    assert arm.violations() == {}


def test_an_old_chunk_is_old_by_the_monotonic_clock(arm: DrivenArm, profile: Profile) -> None:
    arm.run(200)
    arm.chunk(arm.sweep(10), age=round(profile.safety.max_chunk_age * 1e9 / PERIOD_NS) + 2)
    tick = arm.run()
    assert tick.command is not None
    assert tick.command.alterations == Alteration.STALE
    assert tick.command.joints is None


def test_at_the_end_of_an_episode_it_brakes_and_is_then_left_alone(arm: DrivenArm) -> None:
    arm.chunk(arm.sweep(50))
    arm.run(10)
    arm.executor.end("e")
    arm.rest()
    sent = len(arm.commands)
    arm.run(30)
    assert arm.mode == "idle"
    assert len(arm.commands) == sent
    assert not arm.executor.report.latched
    arm.joints = READY + 0.2
    arm.executor.begin("next")
    arm.run()
    arm.chunk(np.hstack([np.tile(arm.joints, (5, 1)), np.ones((5, 1))]), episode="next")
    arm.run()
    np.testing.assert_allclose(arm.commands[-1], READY + 0.2, atol=1e-6)


def test_speed_is_a_part_of_the_limits(arm: DrivenArm) -> None:
    arm.executor.set_speed_scale(0.1)
    assert arm.executor.report.speed_scale == 0.1
    arm.chunk(arm.sweep(30, 3.0))
    arm.run(30)
    speed = np.abs(np.diff(arm.commands, axis=0)).max(axis=0) / (PERIOD_NS / 1e9)
    assert (speed <= 0.1 * arm.limits.velocity + 1e-9).all()


def test_what_lies_ahead_is_what_is_then_sent_and_ends_at_rest(arm: DrivenArm) -> None:
    assert arm.executor.ahead() is None
    arm.chunk(arm.sweep(12), execute=12)
    arm.run(4)
    ahead = arm.executor.ahead()
    assert ahead is not None
    np.testing.assert_array_equal(ahead.positions[0], arm.commands[-1])
    np.testing.assert_array_equal(ahead.velocities[-1], 0.0)
    before = len(arm.commands)
    arm.run(len(ahead.positions) - 1)
    np.testing.assert_allclose(arm.commands[before:], ahead.positions[1:], atol=1e-9)


def test_counts_and_ages_are_reported(arm: DrivenArm) -> None:
    arm.chunk(np.full((3, 8), np.nan))
    arm.run(2)
    arm.chunk(np.tile([*READY, 1.0], (10, 1)))
    arm.run(4)
    report = arm.executor.report
    assert (report.played, report.altered) == (6, 2)
    assert report.alteration_counts[2] == 2
    assert report.queue_depth == 5, "its first action was due when the last of the other chunk was played"
    assert report.action_age_s == pytest.approx(0.08)
    assert "late" in arm.executor.accept(PlayableChunk("e", 0, "old", np.zeros((1, 8), np.float32), 1, 0))
    assert arm.executor.report.dropped == 1
