"""Broken versions on a whole server with robots over gRPC: each is taken back, with evidence; an equal one stays."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from patience import until

from pirl_server.registry.evaluation import Evaluation, list_hash

BENCH = Path(__file__).parents[2] / "bench"
BROKEN = (
    "nan-in-one-of-ten",
    "frozen-at-zero",
    "one-joint-opposite",
    "raises-in-one-of-four",
    "reaches-beside-the-goal",
)


@pytest.fixture
def toy_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH / "rollback_run"))
    import toy_site

    yield toy_site
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def phase(site: Any) -> str:
    return str(site.watch()["phase"])


def test_broken_versions_are_taken_back_and_an_equal_one_stays_over_a_restart(tmp_path: Path, toy_site: Any) -> None:
    with toy_site.ToySite(tmp_path, robots=2, pace=8.0) as site:
        assert phase(site) == "idle"
        until(lambda: site.episodes("good.0") >= 25, "episodes of the first version")
        for name in BROKEN:
            version = f"{name}.1"
            site.add(version)
            site.promote(version)
            until(lambda: phase(site) != "watching", lambda: site.watch())
            found = site.watch()
            assert (found["phase"], found["version"], found["previous"]) == ("rolled back", version, "good.0"), found
            assert site.registry.aliases()["production"] == "good.0"
            (line,) = [each for each in site.audited("taken back") if each["version"] == version]
            evidence = json.loads(line["evidence"])
            assert line["reason"] == found["reason"]
            assert evidence["new"]["requests"] == found["new"]["requests"] > 0
            answered = site.answered("good.0")
            until(lambda seen=answered: site.answered("good.0") > seen + 10, "robots get the version before again")
        moved = [each for each in site.audited("rolled back") if each["actor"] == "auto-rollback"]
        assert [each["version"] for each in moved] == ["good.0"] * len(BROKEN)
        site.add("good.1")
        site.promote("good.1")
        until(lambda: site.watch()["episodes"] >= 4 and site.watch()["agreement"]["compared"] >= 12, "equal episodes")
        assert phase(site) == "watching"
        known = site.watch()["known"]
        assert known >= 25
    with toy_site.ToySite(tmp_path, robots=1, pace=8.0) as site:
        found = site.watch()
        assert (found["phase"], found["version"], found["known"]) == ("watching", "good.1", known), "continued"
        until(lambda: site.watch()["episodes"] >= 4, "the episodes of before count")
        site.add("opposite.1")
        site.promote("opposite.1")
        until(lambda: phase(site) != "watching", lambda: site.watch())
        assert site.registry.aliases()["production"] == "good.1"


def test_an_operator_turns_it_off_and_a_rollback_by_hand_ends_the_watch(tmp_path: Path, toy_site: Any) -> None:
    with toy_site.ToySite(tmp_path, robots=1, pace=8.0, auto_rollback="off") as site:
        site.add("nan.1")
        site.promote("nan.1")
        until(lambda: site.api.state.services.engine.stats().swaps >= 1, "it serves")
        assert site.watch()["enabled"] is False
        assert site.registry.aliases()["production"] == "nan.1"
    with toy_site.ToySite(tmp_path, robots=0, pace=8.0) as site:
        assert (site.watch()["enabled"], phase(site)) == (True, "ended"), "what was promoted before is not watched"
        assert "--auto-rollback off" in site.watch()["reason"]
        site.add("good.1")
        site.promote("good.1")
        assert phase(site) == "watching"
        site.web.post("/v1/models/rollback", json={"reason": "by hand"}).raise_for_status()
        until(lambda: phase(site) == "ended", lambda: site.watch())


def test_the_gate_says_beforehand_what_it_would_say(tmp_path: Path, toy_site: Any) -> None:
    with toy_site.ToySite(tmp_path, robots=0, pace=8.0) as site:
        site.add("good.1")
        before = site.web.get("/v1/models/good.1/gate").json()
        assert (before["allowed"], before["incumbent"], before["evidence"]["tests"]) == (False, "good.0", [])
        refused = site.web.post("/v1/models/promote", json={"version": "good.1"})
        assert refused.status_code == 409
        assert [error["message"] for error in refused.json()["errors"]] == before["refusals"]
        for version, successes in (("good.0", 40), ("good.1", 90)):
            outcomes, list_ = tuple(at < successes for at in range(100)), list_hash("reach", range(100))
            site.registry.evaluations.put(
                Evaluation(version, "reach", list_, 100, successes, "2026", outcomes=outcomes)
            )
        after = site.web.get("/v1/models/good.1/gate").json()
        (test,) = after["evidence"]["tests"]
        assert (after["allowed"], after["refusals"], test["gained"], test["lost"]) == (True, [], 50, 0)
        assert site.registry.aliases() == {"production": "good.0"}, "to look changes nothing"
        promoted = site.web.post("/v1/models/promote", json={"version": "good.1"}).raise_for_status().json()
        assert promoted["evidence"]["tests"] == [test]
        assert site.web.get("/v1/models/nothing/gate").status_code == 404
