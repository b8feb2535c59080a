"""Decisions of an operator against a running engine: what is loaded, who is served by what, and what survives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from patience import patient

from pirl_contract import Contract, Observation
from pirl_server.registry.promotion import Promoter
from pirl_server.registry.versions import Registry
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.engine import Engine
from pirl_server.serving.router import Router
from pirl_server.serving.shadow import Shadow

ROBOTS = [f"arm-{index}" for index in range(20)]


@dataclass
class World:
    """An engine with room for three versions, and a registry of five."""

    registry: Registry
    make_policy: Any
    observe: Callable[[int], Observation]
    open_episodes: set[str] = field(default_factory=set)
    loads: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    reports: list[Any] = field(default_factory=list)

    def start(self) -> None:
        self.engine = Engine(max_loaded=3, window_ms=0)
        self.router = Router(self.open_episodes.__contains__)
        self.shadow = Shadow(self.engine, self.reports.append)
        self.engine.observe(self.shadow.watch)
        self.deployment = Deployment(self.engine, self.registry, self.router, self.shadow, self.load)
        self.promoter = Promoter(self.registry, self.deployment.activate)
        self.deployment.start(self.registry.aliases()["production"])

    def load(self, version: str) -> Any:
        self.loads.append(version)
        if version in self.broken:
            raise ValueError(f"{version} is incomplete")
        return self.make_policy(version=version, mark=float(version[1:]))

    def answered_by(self, robot_id: str = "arm-1", episode_id: str = "", alias: str = "") -> str:
        def submit(version: str | None) -> Any:
            return self.engine.submit(self.observe(0), explore=False, robot_id=robot_id, version=version)

        answer = self.router.ask(submit, robot_id, alias, episode_id).result(patient(30))
        assert (answer.sample.actions == float(answer.policy.version[1:])).all()
        return str(answer.policy.version)

    def begin(self, episode_id: str, robot_id: str) -> None:
        self.open_episodes.add(episode_id)
        self.router.begin(episode_id, robot_id)


@pytest.fixture
def world(
    tmp_path: Path, contract: Contract, make_policy: Any, observe: Callable[[int], Observation]
) -> Iterator[World]:
    registry, source = Registry(tmp_path / "models"), tmp_path / "checkpoint"
    source.mkdir()
    (source / "card.json").write_text("{}")
    for number in range(1, 6):
        registry.add(f"v{number}", source, contract)
    registry.point("production", "v1", "test", "start")
    made = World(registry, make_policy, observe)
    made.start()
    yield made
    made.engine.close()


def promote(world: World, version: str) -> None:
    world.promoter.promote(version, "test", "because", force=True)


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


def test_a_share_that_makes_no_sense_is_refused_before_anything_is_loaded(world: World) -> None:
    with pytest.raises(ValueError, match="canary_share"):
        world.deployment.canary("v2", [], 2.0, "test")
    assert world.loads == ["v1"]


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
