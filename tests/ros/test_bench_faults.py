"""The fault bench: few faults of each kind, and it sees a governor that lets everything through."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pirl_contract import Alteration
from pirl_ros.control.governor import Governor


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    import faults

    return faults


def test_no_fault_gets_through(faults: ModuleType, profile_path: Path) -> None:
    profile = faults.real_arm(profile_path)
    figures = faults.injected(profile, 60) | faults.cut_link(profile, 4)
    figures |= faults.silence(profile, 4) | faults.clock_jumps(profile, 8)
    assert figures["bad actions not marked"] == figures["limits broken"] == 0
    assert figures["links cut: limits broken, late replies played"] == 0
    assert figures["silences: limits broken, moved again"] == 0
    assert figures["wrong staleness decisions"] == figures["clock jumps: limits broken"] == 0
    assert 0 <= figures["periods from expiry to braking, least"] <= figures["periods from expiry to braking, most"] <= 2
    assert figures["ms from watchdog expiry to the latch, most"] <= 100


def test_it_sees_a_governor_that_lets_everything_through(
    faults: ModuleType, profile_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(self: Governor, target: np.ndarray, *_: object) -> tuple[np.ndarray, Alteration]:
        return target, Alteration.NONE

    monkeypatch.setattr(Governor, "command", command)
    figures = faults.injected(faults.real_arm(profile_path), 30)
    assert figures["limits broken"] > 0
    assert figures["bad actions not marked"] > 0
