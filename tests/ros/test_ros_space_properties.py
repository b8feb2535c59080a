"""No input makes a command break a limit, in any action space; and the search sees what it looks for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_contract import Alteration
from pirl_ros.control.action_entries import ToolEntries
from pirl_ros.control.governor import Governor
from pirl_ros.control.gripper import GripperRate
from pirl_ros.profile.profile import load_profile

BENCH = Path(__file__).parents[2] / "bench" / "action_spaces_run"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        import limit_search

    return limit_search


@pytest.fixture(scope="module")
def robots(bench: ModuleType, profile_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = bench.robots(load_profile(profile_path))
    return found


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_limit_is_broken_in_any_space(bench: ModuleType, robots: dict[str, Any], data: st.DataObject) -> None:
    profile = robots[data.draw(st.sampled_from(sorted(robots)))]
    kinds = (bench.ACTIONS, bench.STATES, bench.AGES)
    segment = st.tuples(*(st.sampled_from(sorted(set(kind))) for kind in kinds), st.integers(1, 20))
    trial = bench.Trial(profile, data.draw(st.integers(0, 2**32 - 1)))
    trial.run(data.draw(st.lists(segment, min_size=1, max_size=3)))
    assert dict(trial.problems) == {}


def test_every_kind_of_input_does_something(bench: ModuleType) -> None:
    found = bench.search(1500, seed=7)
    assert found.broken == {}
    assert found.stops > 10
    assert found.sent > 1000
    for bit in ("LIMIT", "JUMP", "WORKSPACE", "NOT_FINITE", "STALE", "CLIPPED", "EMERGENCY_STOP"):
        assert found.bits[bit] > 10, bit


@pytest.mark.parametrize("skipped", ["governor", "jerk", "gripper"])
def test_it_sees_what_lets_an_input_through(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, skipped: str) -> None:
    """Negative controls: the same search with one thing switched off."""
    if skipped == "governor":
        monkeypatch.setattr(Governor, "command", lambda self, target, *_: (target, Alteration.NONE))
        monkeypatch.setattr(Governor, "position", None)
        expected = {"velocity", "acceleration", "jerk"}
    elif skipped == "jerk":
        made = Governor.__init__

        def soft(self: Governor, limits: Any, chain: Any) -> None:
            from dataclasses import replace

            made(self, replace(limits, jerk=100 * limits.jerk), chain)

        monkeypatch.setattr(Governor, "__init__", soft)
        expected = {"jerk"}
    else:
        monkeypatch.setattr(GripperRate, "step", lambda self, wanted: wanted)
        expected = {"gripper speed"}
    found = bench.search(700, seed=3)
    assert expected <= set(found.broken)


def test_a_pose_is_approached_by_its_step_also_among_others(bench: ModuleType, robots: dict[str, Any]) -> None:
    """What a tool part asks of the joints in one period never turns the tool further than it may."""
    turned: list[float] = []
    approached = ToolEntries._approached

    def watched(self: ToolEntries, goal: Any, seed: Any) -> Any:
        result = approached(self, goal, seed)
        if self._limited:
            angle = np.arccos(np.clip((np.trace(result[0][1] @ self._arm.chain.forward(seed)[1].T) - 1) / 2, -1, 1))
            turned.append(float(angle))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToolEntries, "_approached", watched)
        for number, name in enumerate(name for name in robots if "tool_pose" in name or "observation" in name):
            bench.Trial(robots[name], number).run(
                [("extreme", "follows", "fresh", 10), ("huge", "follows", "fresh", 5)]
            )
    assert len(turned) > 100
    assert max(turned) <= 0.1 + 1e-3
