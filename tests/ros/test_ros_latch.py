"""What holds the arm: faults take one act to end, an emergency stop two, and neither ends by itself."""

from __future__ import annotations

import numpy as np

from pirl_contract import Alteration
from pirl_ros.control.fault_latch import FaultLatch
from pirl_ros.sensing.state_history import Measured, StateHistory

MS = 1_000_000
HOUR_NS = 3_600_000_000_000


def test_the_first_fault_stays_until_somebody_engages() -> None:
    latch = FaultLatch()
    assert latch.held is None
    latch.fault(Alteration.LINK_LOSS, "link")
    latch.fault(Alteration.WATCHDOG, "state")
    assert latch.held is not None
    assert (latch.held.bit, latch.held.reason) == (Alteration.LINK_LOSS, "link")
    assert "no emergency stop" in latch.clear_emergency_stop("me")
    assert latch.engage() == ""
    assert latch.held is None


def test_an_emergency_stop_goes_before_faults_and_takes_two_acts() -> None:
    latch = FaultLatch()
    latch.fault(Alteration.LINK_LOSS, "link")
    latch.emergency_stop("smoke", "dashboard")
    assert latch.held is not None
    assert latch.held.bit == Alteration.EMERGENCY_STOP
    assert "dashboard: smoke" in latch.engage()
    assert latch.clear_emergency_stop("operator") == ""
    assert not latch.emergency_stopped
    assert "cleared by operator" in latch.held.reason
    latch.emergency_stop("again", "dashboard")
    assert latch.engage() != ""
    latch.clear_emergency_stop("operator")
    assert latch.engage() == ""
    assert latch.held is None


def state(stamp_ns: int, received_ns: int) -> Measured:
    return Measured(stamp_ns, received_ns, np.array([received_ns / MS]))


def test_a_stamp_is_looked_up_and_never_compared_with_now() -> None:
    history = StateHistory()
    assert history.at(0, 0) is None
    assert history.newest_ns == -1
    for period in range(10):
        history.push(state(HOUR_NS + period * 20 * MS, period * 20 * MS))
    for period in range(10, 20):
        history.push(state(period * 20 * MS, period * 20 * MS))
    now = 400 * MS
    for stamp, received in ((HOUR_NS + 60 * MS, 60 * MS), (300 * MS, 300 * MS), (307 * MS, 307 * MS)):
        found = history.at(stamp, now)
        assert found is not None
        assert found.received_ns == received
    assert history.at(HOUR_NS // 2, now) is None
    assert history.newest_ns == 380 * MS


def test_a_state_that_came_to_others_first_is_not_from_the_future() -> None:
    history = StateHistory()
    history.push(state(0, 0))
    found = history.at(30 * MS, 10 * MS)
    assert found is not None
    assert found.received_ns == 10 * MS


def test_of_equal_stamps_the_newest_counts() -> None:
    history = StateHistory()
    history.push(state(5, 100))
    history.push(state(5, 200))
    found = history.at(5, 300)
    assert found is not None
    assert found.received_ns == 200
