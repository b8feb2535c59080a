"""Decisions of an operator against a running engine: what is loaded, who is served by what, and what survives."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deployed_world import World, promote, registry_of

from pirl_contract import Contract, Observation
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.promotion import PromotionRefusedError
from pirl_server.registry.routing_rules import read_routes, routes_json
from pirl_server.registry.trial_limit import TrialLimit
from pirl_server.rpc.denied import DeniedError

ROBOTS = [f"arm-{index}" for index in range(20)]


@pytest.fixture
def world(
    tmp_path: Path, contract: Contract, make_policy: Any, observe: Callable[[int], Observation]
) -> Iterator[World]:
    """Six versions: v1 to v5 pass the gate, v6 was never evaluated."""
    registry = registry_of(tmp_path, contract, 6)
    for number in range(1, 6):
        outcomes = tuple(at < 50 + number for at in range(100))
        found = Evaluation(f"v{number}", "push", "a" * 16, 100, 50 + number, "2026-01-01", outcomes=outcomes)
        registry.evaluations.put(found)
    made = World(registry, make_policy, observe)
    made.start()
    yield made
    made.engine.close()


def test_a_promotion_reaches_running_episodes_and_rolls_back_without_loading(world: World) -> None:
    world.begin("e1", "arm-1")
    promote(world, "v2")
    assert world.answered_by("arm-1", "e1") == "v2"
    world.promoter.rollback("test")
    assert world.answered_by("arm-1", "e1") == "v1"
    assert world.loads == ["v1", "v2"]
    promote(world, "v3")
    assert set(world.engine.loaded) == {"v3", "v1"}, "the one before is kept, older ones are not"


def test_a_canary_gets_the_candidate_from_its_next_episode_on(world: World) -> None:
    world.begin("e1", "arm-1")
    world.deployment.canary("v2", ["arm-1"], 0.0, "test")
    assert world.answered_by("arm-1", "e1") == "v1", "its episode runs"
    world.begin("e2", "arm-1")
    assert [world.answered_by("arm-1", "e2"), world.answered_by("arm-2")] == ["v2", "v1"]
    promote(world, "v3")
    assert [world.answered_by("arm-1", "e2"), world.answered_by("arm-2")] == ["v2", "v3"]
    assert world.registry.aliases()["candidate"] == "v2"


def test_a_recall_is_at_once_and_one_call(world: World) -> None:
    world.deployment.canary("v2", [], 0.5, "test")
    drawn = {world.answered_by(robot) for robot in ROBOTS}
    assert drawn == {"v1", "v2"}
    world.deployment.canary("v2", ["arm-1"], 0.0, "test")
    world.begin("e1", "arm-1")
    assert world.answered_by("arm-1", "e1") == "v2"
    world.deployment.recall("test", "it shakes")
    assert world.answered_by("arm-1", "e1") == "v1"
    assert set(world.engine.loaded) == {"v1"}
    assert "candidate" not in world.registry.aliases()
    with pytest.raises(ValueError, match="alias 'candidate' does not exist"):
        world.deployment.recall("test")


def test_a_promoted_candidate_ends_its_canary(world: World) -> None:
    world.deployment.canary("v2", ["arm-1"], 0.5, "test")
    promote(world, "v2")
    assert {world.answered_by(robot) for robot in ROBOTS} == {"v2"}
    assert world.registry.aliases() == {"production": "v2"}
    assert world.deployment.routes.canary_share == 0.0


def test_a_version_stays_loaded_while_an_episode_needs_it(world: World) -> None:
    world.deployment.canary("v2", ["arm-1"], 0.0, "test")
    world.begin("e1", "arm-1")
    world.deployment.canary("v3", ["arm-1"], 0.0, "test")
    assert world.answered_by("arm-1", "e1") == "v2"
    with pytest.raises(ValueError, match="no slot for v4"):
        promote(world, "v4")
    assert world.registry.aliases()["production"] == "v1"
    world.open_episodes.clear()
    promote(world, "v4")
    assert world.answered_by("arm-2") == "v4"


def test_a_pin_survives_promotions_and_a_restart(world: World) -> None:
    world.deployment.pin("arm-1", "v2", "test")
    promote(world, "v3")
    assert [world.answered_by("arm-1"), world.answered_by("arm-2")] == ["v2", "v3"]
    world.engine.close()
    world.start()
    assert [world.answered_by("arm-1"), world.answered_by("arm-2")] == ["v2", "v3"]
    world.deployment.unpin("arm-1", "test")
    assert world.answered_by("arm-1") == "v3"
    with pytest.raises(KeyError):
        world.deployment.unpin("arm-1", "test")


def test_a_decision_that_can_not_be_kept_after_a_restart_falls_back_to_production(world: World) -> None:
    world.deployment.pin("arm-1", "v2", "test")
    world.engine.close()
    world.broken.add("v2")
    world.start()
    assert world.answered_by("arm-1") == "v1"
    assert world.deployment.routes.pins == {"arm-1": "v2"}, "still what the operator wants"


@pytest.mark.parametrize("version", ["v9", "v2"])
def test_what_can_not_be_served_changes_nothing(world: World, version: str) -> None:
    world.broken.add("v2")
    for change in (
        lambda: world.deployment.canary(version, ["arm-1"], 0.1, "test"),
        lambda: world.deployment.watch(version, 0.1, "test"),
        lambda: world.deployment.pin("arm-1", version, "test"),
        lambda: promote(world, version),
    ):
        with pytest.raises((KeyError, ValueError)):
            change()
    assert world.answered_by("arm-1") == "v1"
    assert (world.registry.aliases(), set(world.engine.loaded)) == ({"production": "v1"}, {"v1"})


def test_a_version_whose_files_were_changed_is_named_and_takes_no_room(world: World) -> None:
    def changed(version: str) -> Any:
        return world.make_policy(version="v9" if version == "v2" else version, mark=1.0)

    world.deployment._load = changed
    for change in (lambda: promote(world, "v2"), lambda: world.deployment.pin("arm-1", "v2", "test")):
        with pytest.raises(ValueError, match=r"the files of version v2 in .* were changed: they are v9 now"):
            change()
    assert (world.registry.aliases(), set(world.engine.loaded)) == ({"production": "v1"}, {"v1"})
    promote(world, "v3")  # negative control


def test_a_share_that_makes_no_sense_is_refused_before_anything_is_loaded(world: World) -> None:
    with pytest.raises(ValueError, match="canary_share"):
        world.deployment.canary("v2", [], 2.0, "test")
    assert world.loads == ["v1"]


def audited(world: World) -> list[tuple[str, str, str]]:
    path = world.registry.audit_log.path
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["event"], line["version"], line["reason"]) for line in lines if line["version"] == "v6"][1:]


@pytest.mark.parametrize(
    ("robots", "listed", "share", "within"),
    [
        (0, 0, 0.1, True),
        (0, 0, 0.11, False),
        (0, 1, 0.0, True),  # one alone
        (0, 1, 0.1, False),
        (0, 2, 0.0, False),
        (20, 2, 0.0, True),
        (20, 3, 0.0, False),
        (20, 1, 0.05, True),
        (20, 2, 0.05, False),
    ],
)
def test_a_version_that_has_not_passed_the_gate_gets_a_small_canary_only(
    world: World, robots: int, listed: int, share: float, within: bool
) -> None:
    world.robots = robots
    if within:
        world.deployment.canary("v6", ROBOTS[:listed], share, "test")
        assert world.deployment.routes.canary_version == "v6"
        return
    with pytest.raises(PromotionRefusedError, match=r"canary of .* no evaluation on the same fixed list"):
        world.deployment.canary("v6", ROBOTS[:listed], share, "test")
    assert (world.registry.aliases(), set(world.engine.loaded)) == ({"production": "v1"}, {"v1"})
    assert [event for event, *_ in audited(world)] == ["refused"]
    world.deployment.canary("v2", ROBOTS[:listed], share, "test")  # negative control: v2 passes the gate


def test_a_limit_of_0_lets_nothing_untested_drive(world: World) -> None:
    world.engine.close()
    world.start()
    world.deployment._trial = TrialLimit(world.registry, 0.0)
    for listed, share in ((1, 0.0), (0, 0.01)):
        with pytest.raises(PromotionRefusedError):
            world.deployment.canary("v6", ROBOTS[:listed], share, "test")
    world.deployment.canary("v2", ROBOTS, 1.0, "test")


def test_a_pin_takes_the_gate_or_a_version_that_was_in_production(world: World) -> None:
    with pytest.raises(PromotionRefusedError, match="a pin requires"):
        world.deployment.pin("arm-1", "v6", "test")
    promote(world, "v6")
    promote(world, "v2")
    world.deployment.pin("arm-1", "v6", "test")
    assert world.answered_by("arm-1") == "v6"
    world.deployment.unpin("arm-1", "test")
    world.promoter.rollback("test")
    world.promoter.rollback("test", "it shakes")
    with pytest.raises(PromotionRefusedError, match="a pin requires"):
        world.deployment.pin("arm-1", "v6", "test")


def test_force_goes_past_the_limit_with_a_reason_that_is_audited(world: World) -> None:
    for change in (
        lambda reason: world.deployment.canary("v6", [], 1.0, "ada", reason, force=True),
        lambda reason: world.deployment.pin("arm-1", "v6", "ada", reason, force=True),
    ):
        with pytest.raises(ValueError, match="force needs a reason"):
            change(" ")
        change("arms are parked")
    assert {world.answered_by(robot) for robot in ROBOTS} == {"v6"}
    assert audited(world) == [
        ("forced: canary", "v6", "arms are parked"),
        ("forced: canary share", "v6", "arms are parked"),
        ("forced: pinned arm-1", "v6", "arms are parked"),
    ]


def test_a_job_that_moves_the_candidate_does_not_move_the_robots_of_a_canary(world: World) -> None:
    """A job points the alias at what it has made; at the next start that would drive every robot of the canary."""
    world.deployment.canary("v2", [], 1.0, "test")
    world.registry.point("candidate", "v6", "job_x", "finetune_sim")
    world.engine.close()
    world.start()
    assert {world.answered_by(robot) for robot in ROBOTS} == {"v1"}
    assert "v6" in world.engine.loaded, "negative control: it could be served"
    with pytest.raises(DeniedError, match="not in the canary"):
        world.answered_by(alias="candidate")
    world.registry.point("candidate", "v2", "test", "back")
    world.engine.close()
    world.start()
    assert {world.answered_by(robot) for robot in ROBOTS} == {"v2"}


def test_routes_of_before_the_canary_named_its_version_end_that_canary(world: World) -> None:
    world.deployment.canary("v2", [], 1.0, "test")
    world.deployment.pin("arm-1", "v3", "test")
    path = world.registry.audit_log.path.with_name("routes.json")
    kept = routes_json(read_routes(path))
    del kept["canary_version"]
    path.write_text(json.dumps(kept))
    world.engine.close()
    world.start()
    assert [world.answered_by("arm-1"), world.answered_by("arm-2")] == ["v3", "v1"]


def test_a_shadow_is_compared_and_never_drives(world: World) -> None:
    world.deployment.watch("v3", 1.0, "test")
    while (report := world.shadow.report()) and report.compared < 100:
        assert world.answered_by("arm-1") == "v1"
        while (seen := world.shadow.report()) and seen.compared + seen.skipped == report.compared + report.skipped:
            time.sleep(0.0005)
    assert report
    assert report.version == "v3"
    assert report.rms == pytest.approx({"dq0": 2.0, "dq1": 2.0}), "its actions are 3, production's 1"
    assert report.worst == pytest.approx({"dq0": 2.0, "dq1": 2.0})
    assert world.reports[0]["compared"] == 100
    world.deployment.pin("arm-2", "v1", "test")
    assert (kept := world.shadow.report())
    assert kept.compared >= 100, "another decision changes nothing here"
    promote(world, "v2")
    assert (anew := world.shadow.report())
    assert (anew.version, anew.compared) == ("v3", 0)
    world.promoter.rollback("test")
    world.deployment.unpin("arm-2", "test")
    world.deployment.unwatch("test")
    assert world.shadow.report() is None
    assert set(world.engine.loaded) == {"v1", "v2"}, "v2 was in production before"


def test_a_shadow_sees_a_share_and_only_what_production_answered(world: World) -> None:
    world.deployment.watch("v3", 0.25, "test")
    world.deployment.pin("arm-2", "v2", "test")
    for _ in range(200):
        world.answered_by("arm-2")
    report = world.shadow.report()
    assert report
    assert report.compared + report.skipped == 0
    for _ in range(400):
        world.answered_by("arm-1")
    world.engine.close()
    report = world.shadow.report()
    assert report
    assert 50 < report.compared + report.skipped < 160
