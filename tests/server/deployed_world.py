"""A running engine that serves versions of a registry to robots whose episodes a test begins, without a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patience import patient

from pirl_contract import Contract, Observation
from pirl_server.registry.promotion import Promoter
from pirl_server.registry.promotion_gate import SeeRobots, no_robots
from pirl_server.registry.trial_limit import TrialLimit
from pirl_server.registry.versions import Registry
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.engine import Engine
from pirl_server.serving.router import Dispatcher, Router
from pirl_server.serving.shadow import Shadow


def registry_of(folder: Path, contract: Contract, versions: int) -> Registry:
    """Versions v1, v2 and so on, the first of them in production."""
    registry = Registry(folder / "models")
    for number in range(1, versions + 1):
        (source := folder / f"v{number}").mkdir()
        (source / "card.json").write_text('{"task": "push"}')
        registry.add(f"v{number}", source, contract)
    registry.point("production", "v1", "test", "start")
    return registry


@dataclass
class World:
    """An engine with room for three versions, and a registry."""

    registry: Registry
    make_policy: Any
    observe: Callable[[int], Observation]
    open_episodes: set[str] = field(default_factory=set)
    loads: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    on_load: Callable[[], None] = lambda: None
    reports: list[Any] = field(default_factory=list)
    robots: int = 0
    """that are known, to the limit of a canary"""
    see_robots: SeeRobots = no_robots

    def start(self) -> None:
        self.engine = Engine(max_loaded=3, window_ms=0)
        self.trial = TrialLimit(self.registry, 0.1, lambda: self.robots)
        self.router = Router(self.open_episodes.__contains__)
        self.shadow = Shadow(self.engine, self.reports.append)
        self.deployment = Deployment(self.engine, self.registry, self.router, self.shadow, self.load, self.trial)
        self.promoter = Promoter(
            self.registry,
            self.deployment.activate,
            see_robots=lambda *asked: self.see_robots(*asked),
            take_away=self.deployment.roll_back,
        )
        self.deployment.start(self.registry.aliases()["production"])

    def load(self, version: str) -> Any:
        self.loads.append(version)
        self.on_load()
        if version in self.broken:
            raise ValueError(f"{version} is incomplete")
        return self.make_policy(version=version, mark=float(version[1:]))

    def answered_by(self, robot_id: str = "arm-1", episode_id: str = "", alias: str = "") -> str:
        dispatcher, asked = Dispatcher(self.engine, router=self.router), replace(self.observe(0), robot_id=robot_id)
        future = dispatcher.submit(asked, deadline=math.inf, alias=alias, episode_id=episode_id)
        answer = future.result(patient(30))
        assert (answer.sample.actions == float(answer.policy.version[1:])).all()
        return str(answer.policy.version)

    def begin(self, episode_id: str, robot_id: str) -> None:
        self.open_episodes.add(episode_id)
        self.router.begin(episode_id, robot_id)


def promote(world: World, version: str) -> None:
    world.promoter.promote(version, "test", "because", force=True)
