"""A fleet and its server in memory, for loops: what each version is worth is known, episodes come when asked for."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import count

from pirl_server.config.jobs import Evaluate, FinetuneEpisodes
from pirl_server.config.success import SuccessModel
from pirl_server.loop.state import LoopState, Phase
from pirl_server.loop.world import (
    Action,
    CancelChild,
    Child,
    EpisodeFacts,
    Promote,
    RejectedError,
    RollBack,
    StartCanary,
    Submit,
    View,
    Withdraw,
)

STEPS = 10


@dataclass(frozen=True)
class Worth:
    """What a version really is."""

    success: float = 0.8
    altered: float = 0.0
    fault: float = 0.0
    robots: float | None = None
    """success on robots where that is another one than in the simulator"""


@dataclass
class Fleet:
    """A `World`. `learnt` are the versions that learning makes, in order, the last one again and again."""

    learnt: list[Worth]
    robots: tuple[str, ...] = ("arm-1", "arm-2", "arm-3")
    base: Worth = Worth()
    seed: int = 0
    errors: list[Child] = field(default_factory=list)
    """how the next jobs end, instead of succeeding"""

    def __post_init__(self) -> None:
        self.random, self._numbers = random.Random(self.seed), count()
        self._time = datetime.now(timezone.utc)
        self.worth = {"v0": self.base}
        self.production, self.previous, self.canary = "v0", list[str](), ""
        self.canary_robots: tuple[str, ...] = ()
        self.episodes: list[EpisodeFacts] = []
        self.jobs: dict[str, FinetuneEpisodes | Evaluate | SuccessModel] = {}
        self.judge: Callable[[EpisodeFacts], bool | None] = lambda episode: None
        """the success model: what it proposes for an episode without a label"""
        self.ended: dict[str, Child] = {}
        self.keys: dict[str, str] = {}
        self.outcomes: dict[tuple[str, int], tuple[bool, ...]] = {}
        self.actions: list[Action] = []
        self.not_finite, self.paused, self.rejection = 0, False, ""
        self.share: float | None = None
        self.looks = 0
        self.before: Callable[[Action], None] = lambda action: None
        self.driven: dict[str, set[str]] = {}
        """version -> robots that ran an episode with it"""

    @property
    def now(self) -> str:
        return self._time.isoformat(timespec="milliseconds")

    @property
    def working(self) -> list[str]:
        return [job for job in self.jobs if job not in self.ended]

    def pass_time(self, **much: float) -> None:
        self._time += timedelta(**much)

    def run(self, robot: str, labelled: bool = True) -> EpisodeFacts:
        """One episode of a robot, by the version that it is given."""
        self.pass_time(seconds=30)
        version = self.canary if self.canary and robot in self.canary_robots else self.production
        worth = self.worth[version]
        rate = worth.success if worth.robots is None else worth.robots
        episode = EpisodeFacts(
            id=f"{next(self._numbers):032x}",
            robot_id=robot,
            version=version,
            success=(self.random.random() < rate) if labelled else None,
            created=self.now,
            seconds=20.0,
            policy_steps=STEPS,
            altered_steps=sum(self.random.random() < worth.altered for _ in range(STEPS)),
            fault="an emergency stop" if self.random.random() < worth.fault else "",
        )
        self.driven.setdefault(version, set()).add(robot)
        self.episodes.append(episode)
        return episode

    def finish(self) -> None:
        """Let the job end."""
        for job in self.working:
            self.ended[job] = self.errors.pop(0) if self.errors else self._done(self.jobs[job])

    def _done(self, spec: FinetuneEpisodes | Evaluate | SuccessModel) -> Child:
        if isinstance(spec, SuccessModel):
            self.episodes = [
                replace(each, proposed=self.judge(each)) if each.success is None else each for each in self.episodes
            ]
            return Child(ended=True, version=spec.model)
        if isinstance(spec, Evaluate):
            states = random.Random(spec.first)
            worth = self.worth[spec.version].success
            self.outcomes[spec.version, spec.first] = tuple(states.random() < worth for _ in range(spec.episodes))
            return Child(ended=True, version=spec.version)
        version = f"v{len(self.worth)}"
        self.worth[version] = self.learnt.pop(0) if len(self.learnt) > 1 else self.learnt[0]
        by_model = sum(each.proposed is not None for each in self.episodes) if spec.success_model else 0
        return Child(ended=True, version=version, model_labels=by_model)

    @property
    def idle(self) -> bool:
        """No loop looks at it."""
        return self.share is None

    def view(self, state: LoopState) -> View:
        self.looks += 1
        child = self.ended.get(state.child, Child(ended=False)) if state.child else None
        outcomes = None
        if state.phase is Phase.EVALUATE_CANDIDATE and child is not None and child.ended and not child.error:
            spec = self.jobs[state.child]
            assert isinstance(spec, Evaluate)
            outcomes = (self.outcomes[state.base, spec.first], self.outcomes[state.candidate, spec.first])
        return View(
            now=self.now,
            production=self.production,
            canary=self.canary,
            episodes=tuple(self.episodes),
            child=child,
            outcomes=outcomes,
            rejection=self.rejection,
            not_finite=self.not_finite,
            paused=self.paused,
        )

    def act(self, action: Action) -> str:
        self.before(action)
        self.actions.append(action)
        if isinstance(action, Submit):
            if action.key not in self.keys:
                self.keys[action.key] = f"job-{len(self.jobs)}"
                self.jobs[self.keys[action.key]] = action.spec
            return self.keys[action.key]
        if isinstance(action, StartCanary):
            self.canary, self.canary_robots = action.version, action.robots
        elif isinstance(action, Withdraw) and self.canary == action.version:
            self.canary, self.canary_robots = "", ()
        elif isinstance(action, Promote) and self.production != action.version:
            self.previous.append(self.production)
            self.production, self.canary, self.canary_robots = action.version, "", ()
        elif isinstance(action, RollBack) and self.production == action.version:
            if not self.previous:
                raise RejectedError("there is no earlier production version to roll back to")
            self.production = self.previous.pop()
        elif isinstance(action, CancelChild):
            self.ended.setdefault(action.job, Child(ended=True, error="cancelled"))
        return ""

    def explore(self, share: float | None) -> None:
        self.share = share


def facts(number: int, success: bool | None, **changes: object) -> EpisodeFacts:
    """An episode of arm-1 with version v1."""
    created = f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000+00:00"
    plain = EpisodeFacts(f"{number:032x}", "arm-1", "v1", success, created, 20.0, STEPS)
    return replace(plain, **changes)  # type: ignore[arg-type]
