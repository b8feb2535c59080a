"""The life of one instruction without ROS: labels, their undo window, and every way to end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pirl_ros.episode.instruction_run import Ending, EpisodeRun, RunLimits


@pytest.fixture
def run() -> EpisodeRun:
    run = EpisodeRun(RunLimits(duration_s=60.0, undo_window_s=2.0, patience_s=10.0))
    run.begin("e1", 100.0)
    return run


def ending(run: EpisodeRun, now_s: float) -> tuple[str, str]:
    found = run.ending(now_s)
    assert found is not None
    return found.code, found.reason


def well(run: EpisodeRun, now_s: float) -> None:
    run.policy_reported("", now_s)
    run.arm_reported(False, False, "", now_s)


def test_nothing_ends_it_before_its_time(run: EpisodeRun) -> None:
    for now_s in range(100, 160):
        well(run, now_s)
        assert run.ending(now_s) is None
    well(run, 160)
    assert ending(run, 160) == ("TIME_LIMIT", "time_limit")
    assert run.outcome == "unlabeled", "nobody said how it went"


def test_a_label_ends_it_after_the_undo_window(run: EpisodeRun) -> None:
    run.mark("success", True, 101.0)
    assert run.paused
    assert run.ending(102.9) is None
    assert ending(run, 103.0) == ("NONE", "label")
    assert (run.outcome, run.label_source) == ("success", "operator")


def test_an_undone_label_leaves_it_unlabeled_and_ended(run: EpisodeRun) -> None:
    run.mark("failure", True, 101.0)
    run.mark("undo", True, 102.0)
    assert ending(run, 103.0) == ("NONE", "label")
    assert run.outcome == "unlabeled"


def test_a_label_can_be_corrected_within_the_window(run: EpisodeRun) -> None:
    run.mark("failure", True, 101.0)
    run.mark("discard", True, 102.0)
    assert run.ending(103.5) is None, "the window starts anew"
    assert ending(run, 104.0) == ("NONE", "label")
    assert run.outcome == "discard"


def test_a_label_that_does_not_end_it_is_kept(run: EpisodeRun) -> None:
    run.mark("success", False, 101.0)
    assert not run.paused
    run.end(Ending("CANCELED", "canceled"))
    assert run.outcome == "success"


@pytest.mark.parametrize("label", ["", "great", "unlabeled"])
def test_other_words_are_refused(run: EpisodeRun, label: str) -> None:
    with pytest.raises(ValueError, match="not known"):
        run.mark(label, True, 101.0)


def test_there_must_be_something_to_undo(run: EpisodeRun) -> None:
    with pytest.raises(ValueError, match="no label"):
        run.mark("undo", True, 101.0)


def test_success_counts_once_the_task_was_unsolved(run: EpisodeRun) -> None:
    run.signal(True)
    assert run.ending(101.0) is None, "left over from before the reset"
    run.signal(False)
    run.signal(True)
    assert ending(run, 101.0) == ("NONE", "signal")
    assert (run.outcome, run.label_source) == ("success", "sim")


@pytest.mark.parametrize("succeeded", [True, False])
def test_on_a_real_robot_a_program_labels_not_a_simulator(run: EpisodeRun, succeeded: bool) -> None:
    run.limits = replace(run.limits, signal_source="classifier")
    run.signal(False)
    run.signal(succeeded)
    well(run, 160)
    run.ending(160)
    assert (run.outcome, run.label_source) == ("success" if succeeded else "failure", "classifier")


def test_an_operator_overrules_the_signal(run: EpisodeRun) -> None:
    run.mark("failure", False, 101.0)
    run.signal(False)
    run.signal(True)
    assert (run.outcome, run.label_source) == ("failure", "operator")


def test_a_task_that_reports_and_never_succeeded_has_failed(run: EpisodeRun) -> None:
    run.signal(False)
    well(run, 160)
    run.ending(160)
    assert (run.outcome, run.label_source) == ("failure", "sim")


def test_the_first_ending_counts(run: EpisodeRun) -> None:
    run.arm_reported(True, True, "operator pressed it", 101.0)
    run.end(Ending("CANCELED", "canceled"))
    found = run.ending(200.0)
    assert found == Ending("EMERGENCY_STOP", "emergency_stop", "operator pressed it")
    assert found.fault
    assert found.end_reason == "fault"


def test_a_latched_arm_is_a_lost_link(run: EpisodeRun) -> None:
    run.arm_reported(False, True, "no chunk for 0.3 s", 101.0)
    assert ending(run, 101.0) == ("LINK_LOST", "link_lost")


def test_a_server_that_stays_away_is_a_lost_link(run: EpisodeRun) -> None:
    for now_s in range(100, 110):
        run.arm_reported(False, False, "", now_s)
        run.policy_reported("not reachable", now_s)
    assert run.ending(109.9) is None
    assert ending(run, 110.0) == ("LINK_LOST", "link_lost")


REFUSED = Ending("STOP_REFUSED", "refused", "policy server is not reachable")


def test_a_fault_is_not_hidden_by_an_end_that_failed_for_it(run: EpisodeRun) -> None:
    run.arm_reported(False, True, "no chunk for 0.3 s", 101.0)
    run.supersede(REFUSED)
    words = "no chunk for 0.3 s; policy server is not reachable"
    assert run.ending(101.0) == Ending("LINK_LOST", "link_lost", words)


@pytest.mark.parametrize("code", ["NONE", "TIME_LIMIT", "CANCELED"])
def test_a_regular_ending_that_could_not_be_stored_is_a_fault(run: EpisodeRun, code: str) -> None:
    run.end(Ending(code, "label"))
    run.supersede(REFUSED)
    assert run.ending(101.0) == REFUSED


@pytest.mark.parametrize("silent", ["arm_node", "policy_node"])
def test_a_silent_node_is_named(run: EpisodeRun, silent: str) -> None:
    if silent == "arm_node":
        run.policy_reported("", 109.0)
    else:
        run.arm_reported(False, False, "", 109.0)
    found = run.ending(110.0)
    assert found is not None
    assert found.code == "NODE_LOST"
    assert silent in found.message


def test_before_it_begins_no_clock_runs() -> None:
    run = EpisodeRun(RunLimits(1.0, 1.0, 1.0))
    assert run.ending(1e9) is None
    run.end(Ending("CANCELED", "canceled"))
    assert ending(run, 1e9) == ("CANCELED", "canceled")
