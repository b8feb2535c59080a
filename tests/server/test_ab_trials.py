"""Blinded comparisons: error rates of the stopping rule, the order, and a whole server that keeps the secret."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import until

from pirl_server.registry.ab_test import judge
from pirl_server.registry.ab_trials import AbTrial, AbTrials

BENCH = Path(__file__).parents[2] / "bench"
TRIAL = AbTrial("ab_" + "0" * 16, "v1", "v2", ("arm-1",), "seed", 50, 0.15, 0.05, "2026", "ada", "new data", "v1")


RUNS = 150


def most(alpha: float) -> float:
    """Of the runs, how many may err: three standard deviations above alpha."""
    return RUNS * alpha + 3 * (RUNS * alpha) ** 0.5


def decided(first: float, second: float) -> Counter[str]:
    """Verdicts of trials with these success rates."""
    rng, found = np.random.default_rng(11), Counter[str]()
    for _ in range(RUNS):
        pairs = zip(rng.random(120) < first, rng.random(120) < second)
        found[judge([(bool(a), bool(b)) for a, b in pairs], 0.15, 0.05).verdict] += 1
    return found


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_equal_versions_are_rarely_told_apart_however_often_one_looks(rate: float) -> None:
    found = decided(rate, rate)
    assert found["first"] + found["second"] <= most(0.05)


@pytest.mark.parametrize(("first", "second"), [(0.75, 0.9), (0.9, 0.75), (0.4, 0.55)])
def test_versions_that_differ_by_the_margin_are_rarely_called_equal(first: float, second: float) -> None:
    found = decided(first, second)
    assert found["equal"] <= most(0.05)
    assert found["second" if first > second else "first"] <= most(0.025)


def test_much_better_versions_are_found_soon() -> None:
    assert decided(0.9, 0.4)["first"] >= 0.98 * RUNS
    assert decided(0.4, 0.9)["second"] >= 0.98 * RUNS
    assert decided(0.97, 0.97)["equal"] >= 0.9 * RUNS
    assert judge([(True, False)] * 20, 0.15, 0.05).pairs < 12


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_it_is_symmetric_and_final(pairs: list[tuple[bool, bool]]) -> None:
    found, swapped = judge(pairs, 0.15, 0.05), judge([(b, a) for a, b in pairs], 0.15, 0.05)
    assert (found.first, found.p_first, found.pairs) == (swapped.second, swapped.p_second, swapped.pairs)
    assert {"first": "second", "second": "first"}.get(found.verdict, found.verdict) == swapped.verdict
    if found.verdict:
        assert judge([*pairs, (False, True), (True, False)], 0.15, 0.05) == found


def test_each_two_episodes_have_both_versions_in_an_order_that_varies() -> None:
    orders = set()
    for robot in ("arm-1", "arm-2"):
        drawn = [TRIAL.version_of(robot, number) for number in range(40)]
        assert all({drawn[at], drawn[at + 1]} == {"v1", "v2"} for at in range(0, 40, 2))
        orders |= {(robot, drawn[at]) for at in range(0, 40, 2)}
    assert len(orders) == 4, "either may come first on each robot"


def test_a_trial_is_read_as_it_was_written_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    trials = AbTrials(tmp_path)
    ended = replace(TRIAL, status="decided", result=judge([(True, False)] * 20, 0.15, 0.05))
    trials.put(ended)
    assert trials.get(TRIAL.id) == ended
    (tmp_path / "ab_trials" / f"ab_{'1' * 16}.json").write_text("{}")
    found, damaged = trials.list()
    assert (found, list(damaged)) == ([ended], [f"ab_{'1' * 16}"])


@pytest.fixture
def toy_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH / "rollback_run"))
    import toy_site

    yield toy_site
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


BODY = {"first": "good.0", "second": "reaches-beside-the-goal.1", "robots": ["arm-0"], "reason": "which is better"}


def problem(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


def versions(site: Any, robot: str) -> set[str]:
    page = site.web.get("/v1/episodes", params={"robot": robot, "limit": 20}).json()
    return {version for each in page["data"] for version in each["policy_versions"]}


def test_a_whole_server_keeps_the_secret_until_it_is_over_and_over_a_restart(tmp_path: Path, toy_site: Any) -> None:
    with toy_site.ToySite(tmp_path, robots=2, pace=0.0) as site:
        site.add("reaches-beside-the-goal.1")
        assert "itself" in problem(site.web.post("/v1/ab-trials", json=BODY | {"second": "good.0"}), 409)
        problem(site.web.post("/v1/ab-trials", json=BODY | {"second": "nothing"}), 404)
        problem(site.web.post("/v1/ab-trials", json=BODY | {"robots": ["arm-0", "arm-1"]}), 409)
        trial = site.web.post("/v1/ab-trials", json=BODY | {"max_pairs": 1000}).raise_for_status().json()
        assert (trial["status"], trial["result"], trial["episodes"]) == ("running", None, [])
        assert "runs" in problem(site.web.post("/v1/ab-trials", json=BODY), 409)
        until(lambda: site.robots[0].episodes["blinded"] >= 2, "blinded episodes")
        assert site.robots[0].seen.keys() <= {"good.0", "blinded"}, "the robot can't see it"
        assert site.robots[1].seen.keys() == {"good.0"}, "the other one takes no part"
        assert "reaches-beside-the-goal.1" not in versions(site, "arm-0")
        assert "blinded" in versions(site, "arm-0")
        assert site.web.get("/v1/robots").json()["data"][0]["policy_version"] in ("blinded", "good.0")
        shown = site.web.get(f"/v1/ab-trials/{trial['id']}").json()
        assert shown["result"] is None or shown["status"] != "running"
    with toy_site.ToySite(tmp_path, robots=1, pace=0.0) as site:

        def ended() -> dict[str, Any]:
            found: dict[str, Any] = site.web.get(f"/v1/ab-trials/{trial['id']}").json()
            return found if found["status"] != "running" else {}

        until(ended, lambda: site.web.get("/v1/ab-trials").json())
        found = ended()
        assert (found["status"], found["result"]["verdict"]) == ("decided", "first")
        assert "good.0 is better" in found["note"]
        drove = Counter(each["version"] for each in found["episodes"])
        assert drove.keys() == {"good.0", "reaches-beside-the-goal.1"}
        assert abs(drove["good.0"] - drove["reaches-beside-the-goal.1"]) <= 3
        assert "reaches-beside-the-goal.1" in versions(site, "arm-0"), "now it is shown"
        (line,) = site.audited("ab trial ended")
        assert (line["trial"], line["verdict"], line["reason"]) == (trial["id"], "first", found["note"])
        answered = site.answered("good.0")
        until(lambda: site.answered("good.0") > answered + 20, "its robot follows production again")
        again = site.web.post("/v1/ab-trials", json=BODY | {"reason": ""}).raise_for_status().json()
        stopped = site.web.post(f"/v1/ab-trials/{again['id']}/stop", json={"reason": "enough"}).json()
        assert (stopped["status"], stopped["note"].partition(": ")[2]) == ("stopped", "enough")
        assert "has ended" in problem(site.web.post(f"/v1/ab-trials/{again['id']}/stop", json={}), 409)
        assert (
            json.loads((tmp_path / "root/models/ab_trials" / f"{again['id']}.json").read_text())["status"] == "stopped"
        )
        problem(site.web.get("/v1/ab-trials/ab_0000000000000000"), 404)
