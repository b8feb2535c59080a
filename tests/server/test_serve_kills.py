"""SIGKILL of a whole `pirl serve` during a watch, a canary and a blinded comparison: what the next one makes of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import until
from served_site import ServedSite

from pirl_server.paths import MODELS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PROMOTION = {"force": True, "reason": "to see whether it is taken back"}
LOOP: dict[str, Any] = {
    "kind": "loop", "task": "wipe-table", "evaluation": None, "rounds": 1, "episodes_per_round": 4,
    "canary": {"episodes": 4, "robots": ["arm-1"]},
    "config": {"method": "filtered_bc", "steps": 2, "batch_size": 8, "min_episodes": 4, "learning_rate": 1e-2},
}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ServedSite]:
    made = ServedSite(tmp_path, known=100)
    yield made
    made.close()


@pytest.fixture
def usual_site(tmp_path: Path) -> Iterator[ServedSite]:
    """Production fails in one of five episodes, so that one failure says nothing."""
    made = ServedSite(tmp_path, known=100, fails=5)
    yield made
    made.close()


def watch(site: ServedSite) -> dict[str, Any]:
    return site.get("/v1/models/watch")


def test_a_watch_goes_on_after_a_kill_and_still_takes_a_worse_version_back(site: ServedSite) -> None:
    """Two failures before the kill and one after it are three: where production never fails, that is enough."""
    site.send("POST", "/v1/models/promote", version=site.second, **PROMOTION)
    since = watch(site)["since"]
    assert [site.run("arm-1", False) for _ in range(2)] == [site.second] * 2
    site.drive("arm-1")
    stored = site.stored()
    site.kill()
    assert site.stored() == stored
    site.start()
    found = watch(site)
    assert (found["phase"], found["version"], found["previous"]) == ("watching", site.second, site.first)
    assert found["since"] == since, "it was not begun again"
    assert site.production == site.second
    site.run("arm-2", False)
    until(lambda: watch(site)["phase"] == "rolled back", lambda: watch(site))
    assert "its first 3 episodes failed" in watch(site)["reason"]
    assert site.production == site.first
    site.kill()
    site.start()
    assert (site.production, watch(site)["phase"]) == (site.first, "rolled back"), "nothing swings to and fro"
    assert len(site.audited("taken back")) == 1


def test_a_kill_in_the_middle_of_a_promotion_leaves_one_version_and_its_watch(site: ServedSite) -> None:
    """It is killed as soon as the audit log names the promotion: the alias has moved, or not, and `watch.json` too."""
    audit = site.root / MODELS / "audit.jsonl"

    def promote() -> None:
        with suppress(httpx.TransportError, AssertionError):
            site.send("POST", "/v1/models/promote", version=site.second, **PROMOTION)

    before = audit.stat().st_size
    caller = threading.Thread(target=promote)
    caller.start()
    until(lambda: audit.stat().st_size > before, "it is logged", every_s=0.0)
    site.kill()
    caller.join()
    site.start()
    if site.production == site.first:  # the alias had not moved: nothing was promoted
        assert watch(site)["phase"] == "idle"
        site.send("POST", "/v1/models/promote", version=site.second, **PROMOTION)
    assert (watch(site)["phase"], watch(site)["version"]) == ("watching", site.second)
    assert [site.run("arm-1", True) for _ in range(4)] == [site.second] * 4
    assert watch(site)["phase"] == "watching", "the control: what succeeds stays"
    for _ in range(12):
        if site.run("arm-1", False) == site.first:
            break
    until(lambda: watch(site)["phase"] == "rolled back", lambda: watch(site))
    assert site.production == site.first


def test_a_canary_lives_through_a_kill_on_its_robots_alone_and_ends_at_once_when_it_is_ended(site: ServedSite) -> None:
    site.send("PUT", "/v1/routing/canary", version=site.second, robots=["arm-1"])
    assert (site.drive("arm-1"), site.drive("arm-2")) == (site.second, site.first)
    site.kill()
    site.start()
    found = site.get("/v1/routing")
    assert (found["canary"]["version"], found["canary"]["robots"]) == (site.second, ["arm-1"])
    assert site.get("/v1/models")["aliases"] == {"production": site.first, "candidate": site.second}
    assert (site.run("arm-1", True), site.run("arm-2", True)) == (site.second, site.first)
    site.server.web.delete("/v1/routing/canary").raise_for_status()
    site.kill()
    site.start()
    assert site.run("arm-1", True) == site.first
    assert site.get("/v1/models")["aliases"] == {"production": site.first}


def test_a_loop_goes_on_in_its_canary_after_a_kill_and_withdraws_a_worse_candidate(usual_site: ServedSite) -> None:
    """Killed while it learns, and in the canary: one candidate is made, and its failures before the kill count."""
    site, job = usual_site, usual_site.send("POST", "/v1/jobs", **LOOP)["id"]

    def stand() -> dict[str, Any]:
        return site.get(f"/v1/jobs/{job}")["result"] or {}

    until(lambda: stand().get("phase") == "collect", stand)
    for _ in range(4):
        site.run("arm-2", True)
    until(lambda: stand().get("phase") == "learn", stand)
    site.kill()
    site.start()
    until(lambda: stand().get("phase") == "canary", stand, 120.0)
    candidate = stand()["candidate"]
    assert site.run("arm-1", False) == candidate
    until(lambda: stand()["canary"].get("episodes") == 1, stand)
    site.drive("arm-1")
    site.kill()
    site.start()
    assert (stand()["phase"], stand()["candidate"], stand()["canary"]["episodes"]) == ("canary", candidate, 1)
    assert site.run("arm-2", True) == site.first
    for _ in range(2):
        if site.run("arm-1", False) != candidate:
            break
    until(lambda: site.get(f"/v1/jobs/{job}")["status"] == "succeeded", stand)
    (only,) = stand()["rounds"]
    assert (only["outcome"], only["candidate"]) == ("worse", candidate)
    assert site.get("/v1/models")["aliases"] == {"production": site.first}
    assert site.run("arm-1", True) == site.first
    learnt = [each for each in site.get("/v1/jobs")["data"] if each["spec"]["kind"] == "finetune_episodes"]
    assert [each["status"] for each in learnt].count("succeeded") == 1


def test_a_blinded_comparison_goes_on_after_a_kill_and_decides_with_the_pairs_of_before(site: ServedSite) -> None:
    """The second version always fails. Nothing shows which one runs, before the kill or after it."""
    trial = site.send("POST", "/v1/ab-trials", first=site.first, second=site.second, robots=["arm-1"], reason="test")
    assert {site.run("arm-1", number % 2 == 0) for number in range(4)} == {"blinded"}
    assert site.drive("arm-1") == "blinded"
    site.kill()
    site.start()
    found = site.get(f"/v1/ab-trials/{trial['id']}")
    assert (found["status"], found["labelled"]) == ("running", 4)
    assert site.run("arm-2", True) == site.first
    assert site.run("arm-1", True) == "blinded"
    stopped = site.send("POST", f"/v1/ab-trials/{trial['id']}/stop", reason="enough")
    assert stopped["status"] == "stopped"
    driven = Counter(each["version"] for each in stopped["episodes"])
    assert sum(driven.values()) == 5
    assert abs(driven[site.first] - driven[site.second]) <= 1, "both in turn, the kill between them"
    assert site.run("arm-1", True) == site.first
    assert site.production == site.first
