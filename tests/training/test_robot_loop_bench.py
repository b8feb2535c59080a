"""The page of the loop's benchmark: what each round left in production, and what of the document stays."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "robot_loop_run"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCH))
    yield __import__("loop_page")
    sys.modules.pop("loop_page", None)


def result(seed: int) -> dict[str, Any]:
    """Three rounds, of which the second one promoted nothing."""
    rated = {"interval": [0.3, 0.9], "n": 4, "gained": 1, "lost": 0, "p": 0.5}
    outcomes = [("promoted", "v1"), ("rejected", "v2"), ("promoted", "v3")]
    rounds = [
        {"number": number, "candidate": name, "outcome": outcome, "robot_minutes": number + 1.0, "wall_s": 60.0}
        for number, (outcome, name) in enumerate(outcomes)
    ]
    return {
        "plan": {"task": "T", "method": "dagger", "seed": seed, "robots": 1, "episodes": 10, "operator": 0.5},
        "seed": seed,
        "robots": 1,
        "command": "bench/robot_loop.py --seeds 0",
        "versions": [{"version": f"v{n}", "success": 0.4 + n / 10, **rated} for n in (0, 1, 3)],
        "rounds": rounds,
        "lineages": {"v0": {}, "v1": {"episodes": "10", "human_share": "0.2"}, "v3": {"episodes": "31"}},
    }


def test_a_round_that_promoted_nothing_leaves_the_version_before_it(page: ModuleType) -> None:
    steps = page.steps(result(0))
    assert [each["version"] for each in steps] == ["v0", "v1", "v1", "v3"]
    assert [each["outcome"] for each in steps] == ["base", "promoted", "rejected", "promoted"]
    assert [each["episodes"] for each in steps] == [0, 10, 10, 31]


def test_the_page_and_its_rounds_leave_what_others_wrote(page: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    for seed in (0, 1):
        (out / f"T-{seed}").mkdir(parents=True)
        (out / f"T-{seed}" / "result.json").write_text(json.dumps(result(seed)))
    without = {"success": 0.45, "episodes": "7", "n": 4, "gained": 1, "lost": 0, "p": 0.5}
    (out / "T-1" / "without.json").write_text(json.dumps(without))
    document = tmp_path / page.DOCUMENT
    kept = {"ppo_logged": [{"round": 1}], "dagger, of before over ROS": []}
    document.write_text(json.dumps({"tasks": {"T": {"recap": []}}, "rounds": {"T": kept}}))
    page.write_page(tmp_path / "page.md", out)
    found = json.loads(document.read_text())
    assert found["tasks"] == {"T": {"recap": []}}
    name = "dagger, operator in 50% of the episodes, one robot, 10 episodes a round over ROS"
    assert set(found["rounds"]["T"]) == {"ppo_logged", name}
    assert [(each["seed"], each["round"]) for each in found["rounds"]["T"][name]] == [
        (s, r) for s in (0, 1) for r in (1, 2, 3)
    ]
    text = (tmp_path / "page.md").read_text()
    assert "| 0 | 1 | promoted | 0.500 (0.300 to 0.900) | +1 -0 of 4 | 0.5 | 10 (20%) | 1.0 | 1 |" in text
    assert "Mean of 2 seeds by round: 0.400, 0.500, 0.500, 0.700, 0.10 robot minutes per point." in text
    assert "| 1 | 0.400 | 7 | 0.450 | +1 -0 of 4 | 0.5 | 10 (20%) | 0.500 |" in text
