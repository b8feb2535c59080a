"""The serving benchmark: its parts find what they are to find, and both commands print their figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from patience import completed

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH / "serving_run"))
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(BENCH) in str(sys.modules[name].__file__):
            del sys.modules[name]


def imported(name: str) -> ModuleType:
    return __import__(name)


@pytest.mark.parametrize("per_hour", [0.0, 12.0, -3.0])
def test_a_slope_lies_in_its_interval_and_a_leak_is_told_from_noise(bench: None, per_hour: float) -> None:
    slope_per_hour = imported("slope").slope_per_hour
    rng, seconds = np.random.default_rng(0), np.arange(0.0, 1200.0, 0.5)
    values = 100 + per_hour * seconds / 3600 + rng.normal(0, 0.2, len(seconds))
    values[:200] -= 30  # what fills up at the start is no leak
    slope, half = slope_per_hour(list(seconds), list(values))
    assert abs(slope - per_hour) <= 2 * half < 1.5
    assert (abs(slope) > half) == bool(per_hour)


def test_a_slope_needs_samples(bench: None) -> None:
    with pytest.raises(ValueError, match="10 samples are too few"):
        imported("slope").slope_per_hour(list(range(10)), [0.0] * 10)


def test_paced_robots_let_fall_what_is_due_while_they_wait(bench: None) -> None:
    """Asked every 20 ms, answered after 50: every third question at most, each measured from its own asking."""
    import time

    robots = imported("robots").Robots({"slow": lambda port, payload, number: lambda: time.sleep(0.05)})
    robots.connect("key", "slow", 0, "", robots=2)
    answer = robots.crowd("key", robots=2, seconds=0.6, rate_hz=50.0)
    assert all(1 <= len(spans) <= 11 for spans in answer["spans"])
    assert not answer["failures"]


def test_a_robots_failures_are_counted_by_their_words(bench: None) -> None:
    def refuse() -> None:
        raise TimeoutError("too late")

    robots = imported("robots").Robots({"refused": lambda port, payload, number: refuse})
    robots.connect("key", "refused", 0, "", robots=1)
    answer = robots.crowd("key", robots=1, seconds=0.02, rate_hz=100.0)
    assert set(answer["failures"]) == {"TimeoutError: too late"}
    assert answer["spans"] == [[]]


def test_goals_are_ratios_of_the_routes_that_ran(bench: None) -> None:
    one = [{"payload": "state", "route": "ours, session", "p50 ms": 1.0}]
    one += [{"payload": "state", "route": "openpi", "p50 ms": 2.0}]
    full = [{"route": "openpi", "health p99 ms": 80.0}, {"route": "lerobot, floor 0"}]
    found = imported("goals").goals({"one": one, "many": [], "eight": [], "full": full})
    assert found == {
        "session / openpi, p50, state [<= 1.3]": 0.5,
        "health p99 under full load, ms: openpi [< 50]": 80.0,
    }


@pytest.mark.slow
def test_serving_benchmark_prints_its_figures_and_a_page(tmp_path: Path) -> None:
    page = tmp_path / "serving.md"
    command = [sys.executable, str(BENCH / "serving.py"), "--quick", "--json", "--peers", str(tmp_path)]
    command += ["--write", str(page)]
    done = completed(command, limit_s=300, check=True)
    figures = json.loads(done.stdout)
    assert figures["one: payload 2x480x640, route ours, shared memory: p50 ms"] > 0
    assert figures["many: model ms 100.0, robots 8, route ours, session: failed"] == 0
    assert figures["stations: stage the whole call, p50: us"] > figures["stations: stage gRPC, reply: us"] > 0
    assert "lerobot skipped" in done.stderr
    assert page.read_text().count("\n## ") == 6


@pytest.mark.slow
def test_soak_prints_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "soak.py"), "--quick", "--json"]
    done = completed(command, limit_s=300, check=True)
    figures = json.loads(done.stdout)
    assert figures["requests failed"] == figures["chunks of mixed versions"] == 0
    assert figures["episodes published"] > 0
    assert figures["swaps"] > 5
