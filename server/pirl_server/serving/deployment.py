"""Loads and unloads policies to match the routing: production, candidate, shadow, pins.

Every change goes the same way: the version is loaded and warmed up while the others serve, then the decision is
written, then it takes effect, then unused versions are unloaded. When a step raises, robots are served as
before. The version that was in production last stays loaded, as long as there is room: to roll back takes no loading.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from pirl_server.policy.served_policy import ServedPolicy
from pirl_server.registry.ab_trials import AbTrial
from pirl_server.registry.promotion import PRODUCTION, admit, check_force
from pirl_server.registry.promotion_gate import GateResult
from pirl_server.registry.routing_rules import CANDIDATE, SHADOW, Routes
from pirl_server.registry.trial_limit import TrialLimit
from pirl_server.registry.versions import Registry
from pirl_server.serving.engine import Engine
from pirl_server.serving.router import Router
from pirl_server.serving.shadow import Shadow

_LOG = logging.getLogger(__name__)


class Deployment:
    """One change at a time; every method may be called from any thread and returns when the change is in effect.

    `load(version)` reads a registered version onto the device. `actor` and `reason` go to the audit log. `trial` limits
    which versions a canary or a pin may name; `force` goes past it, needs a reason, and is audited. All raise KeyError
    for an unknown version, ValueError for one that can't be served beside the others and PromotionRefusedError beyond
    the limit.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        router: Router,
        shadow: Shadow,
        load: Callable[[str], ServedPolicy],
        trial: TrialLimit,
    ) -> None:
        self._engine, self._registry, self._router, self._load = engine, registry, router, load
        self.shadow, self._trial = shadow, trial
        self._one_at_a_time = threading.RLock()
        self._last, self._wanted = "", tuple[str, ...]()
        self._recalled = ""
        """candidate that no robot gets, whatever the disk still says"""

    @property
    def trial(self) -> AbTrial | None:
        """The comparison that robots take part in now."""
        return self._router.trial

    @property
    def routes(self) -> Routes:
        """What was decided about robots and shares."""
        return self._registry.routes()

    def start(self, production: str) -> None:
        """Serve production and what was decided before a restart; a decision that can't be kept is logged and skipped.

        Raises what loading production raises.
        """
        with self._one_at_a_time:
            self.activate(production)
            aliases, routes = self._registry.aliases(), self._registry.routes()
            for version in dict.fromkeys((aliases.get(CANDIDATE), aliases.get(SHADOW), *routes.pins.values())):
                try:
                    self._bring(version) if version else None
                except (KeyError, ValueError, OSError) as error:
                    _LOG.warning("%s can't be served as routed, production is used instead: %s", version, error)
            self._apply()

    def activate(self, version: str) -> None:
        """Make a version the one that production means to robots, from their next chunk on. See `Promoter`.

        A candidate that becomes production is no candidate any more.
        """
        with self._one_at_a_time:
            before = self._engine.current
            self._bring(version)
            self._engine.use(version)
            _LOG.warning("serving %s", version)
            if before is not None and before.version != version:
                self._last = before.version
            if self._registry.aliases().get(CANDIDATE) == version:
                self._forget(CANDIDATE, "promotion", "it is the production version")
            self._apply()

    def canary(
        self, version: str, robots: Sequence[str], share: float, actor: str, reason: str = "", force: bool = False
    ) -> None:
        """Let listed robots, and a share of the others, get the candidate from their next episode on."""
        check_force(force, reason)
        with self._one_at_a_time:
            routes = replace(self.routes, canary_version=version, canary_robots=tuple(robots), canary_share=share)
            forced = self._admit(version, self._trial.canary(version, len(set(robots)), share), actor, force)
            self._bring(version)
            if self._registry.aliases().get(CANDIDATE) != version:
                self._registry.point(CANDIDATE, version, actor, reason, event=f"{forced}canary")
            self._recalled = ""
            self._decide(routes, version, actor, reason, f"{forced}canary share")

    def recall(self, actor: str, reason: str = "") -> None:
        """End the canary at once: robots of running episodes, too, get production with their next chunk.

        They do so as well where the disk rejects the change (OSError).
        """
        with self._one_at_a_time:
            if (candidate := self._registry.aliases().get(CANDIDATE)) is not None:
                self._take_from_robots(candidate)
            self._forget(CANDIDATE, actor, reason)
            self._apply()

    def withdraw(self, version: str, actor: str, reason: str = "") -> None:
        """End the canary of this version at once, as `recall` does; nothing where it has none and is no candidate."""
        with self._one_at_a_time:
            self._take_from_robots(version)
            if self._registry.aliases().get(CANDIDATE) == version:
                self._forget(CANDIDATE, actor, reason)
            elif self.routes.canary_version == version:
                self._registry.decide(self.routes.for_candidate(None), version, actor, reason, f"no {CANDIDATE}")
            self._apply()

    def watch(self, version: str, share: float, actor: str, reason: str = "") -> None:
        """Let a version draw, on a share of production's observations, while no robot waits: it is only compared."""
        with self._one_at_a_time:
            routes = replace(self.routes, shadow_share=share)
            self._bring(version)
            self._registry.point(SHADOW, version, actor, reason, event="shadow")
            self._decide(routes, version, actor, reason, "shadow share")

    def unwatch(self, actor: str, reason: str = "") -> None:
        """End the comparison."""
        with self._one_at_a_time:
            self._forget(SHADOW, actor, reason)
            self._apply()

    def pin(self, robot_id: str, version: str, actor: str, reason: str = "", force: bool = False) -> None:
        """Keep a robot on a version from its next episode on, whatever is promoted."""
        check_force(force, reason)
        with self._one_at_a_time:
            routes = replace(self.routes, pins={**self.routes.pins, robot_id: version})
            forced = self._admit(version, self._trial.pin(version), actor, force)
            self._bring(version)
            self._decide(routes, version, actor, reason, f"{forced}pinned {robot_id}")

    def unpin(self, robot_id: str, actor: str, reason: str = "") -> None:
        """Let a robot follow production again, from its next episode on. Raises KeyError when it is not pinned."""
        with self._one_at_a_time:
            pins = dict(self.routes.pins)
            version = pins.pop(robot_id)
            self._decide(replace(self.routes, pins=pins), version, actor, reason, f"unpinned {robot_id}")

    def try_out(self, trial: AbTrial, force: bool = False) -> None:
        """Give the robots of a blinded comparison its versions in turn, from their next episodes on.

        Each must be within the limit of a canary on these robots, unless it was in production.
        """
        with self._one_at_a_time:
            check_force(force, trial.reason)
            for version in (trial.first, trial.second):
                if not self._drove(version):
                    self._admit(version, self._trial.canary(version, len(trial.robots), 0.0), trial.actor, force)
            self._wanted = trial.first, trial.second
            try:
                for version in self._wanted:
                    self._bring(version)
                self._router.try_out(trial)  # no episode may begin with a version that is not loaded yet
            finally:
                self._wanted = ()
            self._apply()

    def end_trial(self, recalled: Sequence[str] = ()) -> None:
        """Let its robots get production again from their next episodes on; of recalled versions with the next chunk."""
        with self._one_at_a_time:
            self._router.try_out(None)
            for version in recalled:
                self._router.roll_back(version)
            self._apply()

    def roll_back(self, version: str) -> None:
        """Take a version that was in production from all running episodes but those of robots pinned to it."""
        with self._one_at_a_time:
            self._router.roll_back(version)
            self._apply()

    def _admit(self, version: str, result: GateResult, actor: str, force: bool) -> str:
        """Return what the event's name begins with. Raises PromotionRefusedError."""
        admit(self._registry, version, result, actor, force)
        return "" if result.allowed else "forced: "

    def _take_from_robots(self, version: str) -> None:
        self._recalled = version
        self._router.recall(version)
        self._apply()

    def _decide(self, routes: Routes, version: str, actor: str, reason: str, event: str) -> None:
        self._registry.decide(routes, version, actor, reason, event)
        self._apply()

    def _forget(self, alias: str, actor: str, reason: str) -> str:
        """Take an alias and its shares away. Raises ValueError when it stands for nothing."""
        version = self._registry.drop(alias, actor, reason)
        routes = self.routes.for_candidate(None) if alias == CANDIDATE else replace(self.routes, shadow_share=0.0)
        self._registry.decide(routes, version, actor, reason, f"no {alias}")
        return version

    def _apply(self) -> None:
        """Let the decisions on disk take effect as far as their versions are loaded, and unload the rest."""
        aliases, routes, loaded = self._registry.aliases(), self.routes, self._engine.loaded
        pins = {robot: version for robot, version in routes.pins.items() if version in loaded}
        candidate = None if aliases.get(CANDIDATE) == self._recalled else aliases.get(CANDIDATE)
        kept = replace(routes.for_candidate(candidate), pins=pins)
        self._router.change(kept, candidate if candidate in loaded else None)
        shadow = aliases.get(SHADOW) if aliases.get(SHADOW) in loaded else None
        self.shadow.change(shadow, routes.shadow_share)
        for version in self._spare():
            if version != self._last:
                self._engine.unload(version)

    def _bring(self, version: str) -> None:
        """Load a version unless it is there; the one kept for a rollback gives way to it."""
        home = self._registry.get(version).path
        if version in self._engine.loaded:
            return
        spare = self._spare()
        while spare and not self._has_room(version):
            self._engine.unload(spare.pop(0))
        self._engine.check_room(version)
        policy = self._load(version)
        if policy.version != version:
            raise ValueError(f"the files of version {version} in '{home}' were changed: they are {policy.version} now")
        self._engine.load(policy, any_speed=self._drove(version))

    def _drove(self, version: str) -> bool:
        """Whether robots had it before: to go back to it, any speed will do."""
        return version in (self._registry.aliases().get(PRODUCTION), *self._registry.earlier(PRODUCTION))

    def _has_room(self, version: str) -> bool:
        try:
            self._engine.check_room(version)
        except ValueError:
            return False
        return True

    def _spare(self) -> list[str]:
        """Loaded versions that no robot can be answered by."""
        current, aliases = self._engine.current, self._registry.aliases()
        needed = {*self._router.in_use(), *self._wanted, aliases.get(CANDIDATE), aliases.get(SHADOW)}
        if current is not None:
            needed.add(current.version)
        return [version for version in self._engine.loaded if version not in needed]
