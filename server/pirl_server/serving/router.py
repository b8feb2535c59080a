"""Routes requests: each robot to a policy version, each request to the engine.

Without an alias, or with `production`: the version that the robot is pinned to; else the candidate for the robots of
the canary, by list or by share; else whichever version is production. Only robots that would get the candidate anyway
may ask for it by name: no robot goes past the gate by a word in its request. `shadow` never drives a robot.

What takes effect when: promoting or rolling back production reaches every robot that follows it with its next chunk,
also within an episode (each chunk names its version), so that a bad version is gone at once. Pins and canary are
decided when an episode begins and hold until it ends; without an episode every request is routed by itself. Recalling
the candidate is a rollback: its running episodes continue with production from their next chunk. So do all episodes
that were given a version which is rolled back, but for those of robots that are pinned to it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from pirl_contract import Observation, PreviousChunk
from pirl_server.policy.served_policy import ServedPolicy
from pirl_server.registry.ab_trials import AbTrial
from pirl_server.registry.promotion import PRODUCTION
from pirl_server.registry.routing_rules import CANDIDATE, SHADOW, Routes
from pirl_server.rpc.denied import DeniedError
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import NoPolicyError
from pirl_server.serving.grpc_status import NotFoundError
from pirl_server.serving.request_queue import Inference

MAX_WAIT_S = 30.0
"""longest wait for the device, also the limit of a request that names none"""


def lot(*words: str) -> float:
    """A number in [0, 1) that is the same for the same words, in every process."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


class Router:
    """Maps each robot to a policy version; knows no device. Any thread, and none waits.

    `is_open(episode_id)` says whether an episode still runs: what was decided for it is forgotten after its end.
    """

    def __init__(self, is_open: Callable[[str], bool] = lambda _: True) -> None:
        self._is_open = is_open
        self._lock = threading.Lock()
        self._routes, self._candidate = Routes(), ""
        self._held: dict[str, str | None] = {}
        self._trial: AbTrial | None = None
        self._numbers = Counter[str]()
        self._blinded: set[str] = set()
        self._by_pin: set[str] = set()

    def try_out(self, trial: AbTrial | None) -> None:
        """Give the robots of a blinded comparison its versions in turn, from their next episodes on; None: no more.

        Its running episodes keep their version.
        """
        with self._lock:
            self._trial, self._numbers = trial, Counter()
            for robot_id in () if trial is None else trial.robots:
                self._numbers[robot_id] = 2 * secrets.randbelow(2**30)  # another order after each restart

    @property
    def trial(self) -> AbTrial | None:
        """The comparison that robots take part in now."""
        with self._lock:
            return self._trial

    def blinded(self, episode_id: str) -> bool:
        """Whether no one may see which version drives this episode."""
        with self._lock:
            return episode_id in self._blinded

    def change(self, routes: Routes, candidate: str | None) -> None:
        """Decide by these from now on; running episodes keep what was decided for them."""
        with self._lock:
            self._routes, self._candidate = routes, candidate or ""

    def recall(self, version: str) -> None:
        """Let the running episodes that were given this version continue with production, and compare it no more."""
        with self._lock:
            self._take_away(version)

    def roll_back(self, version: str) -> None:
        """As `recall`, but for the episodes of robots that are pinned to it."""
        with self._lock:
            self._take_away(version, self._by_pin)

    def _take_away(self, version: str, but_for: Iterable[str] = ()) -> None:
        for episode in (each for each, held in self._held.items() if held == version and each not in but_for):
            self._held[episode] = None
        if self._trial is not None and version in (self._trial.first, self._trial.second):
            self._trial = None

    def begin(self, episode_id: str, robot_id: str, alias: str = "") -> str | None:
        """Decide for a whole episode; return what `version` then returns for its requests."""
        with self._lock:
            self._forget_ended()
            tried = self._tried(robot_id, alias)
            self._held[episode_id] = chosen = tried or self._choose(robot_id, alias)
            if tried:
                self._blinded.add(episode_id)
            elif chosen and self._routes.pins.get(robot_id) == chosen:
                self._by_pin.add(episode_id)
            return chosen

    def version(self, robot_id: str, alias: str = "", episode_id: str = "") -> str | None:
        """Return the version that answers a request; None: production, whichever that is by then.

        Raises NotFoundError for an alias that stands for nothing that may drive a robot, DeniedError for the candidate
        where this robot is not in its canary.
        """
        with self._lock:
            if episode_id in self._held:
                return self._held[episode_id]
            return self._choose(robot_id, alias)

    def in_use(self) -> set[str]:
        """Versions, besides production, that a robot may be answered by: none of these may be unloaded."""
        with self._lock:
            self._forget_ended()
            tried = (self._trial.first, self._trial.second) if self._trial else ()
            named: Iterable[str | None] = (self._candidate, *self._routes.pins.values(), *self._held.values(), *tried)
            return {version for version in named if version}

    def _tried(self, robot_id: str, alias: str) -> str:
        """The version of a robot's next episode in a comparison; empty: it takes part in none."""
        trial = self._trial
        if trial is None or robot_id not in trial.robots or robot_id in self._routes.pins:
            return ""
        if alias not in ("", PRODUCTION):
            return ""
        number = self._numbers[robot_id]
        self._numbers[robot_id] += 1
        return trial.version_of(robot_id, number)

    def _choose(self, robot_id: str, alias: str) -> str | None:
        if alias == CANDIDATE and self._candidate:
            if self._in_canary(robot_id) or self._routes.pins.get(robot_id) == self._candidate:
                return self._candidate
            raise DeniedError(
                "forbidden",
                f"robot '{robot_id}' is not in the canary of the candidate: an operator adds it with PUT"
                f" /v1/routing/canary, or pins it with PUT /v1/routing/pins/{robot_id}; without an alias it gets"
                " production",
            )
        if alias not in ("", PRODUCTION):
            known = (PRODUCTION, *([CANDIDATE] if self._in_canary(robot_id) else []))
            why = "the shadow never controls a robot; available:" if alias == SHADOW else "available:"
            raise NotFoundError(f"alias '{alias}' is not served: {why} {', '.join(known)}")
        if robot_id in self._routes.pins:
            return self._routes.pins[robot_id]
        return self._candidate if self._in_canary(robot_id) else None

    def _in_canary(self, robot_id: str) -> bool:
        if not self._candidate:
            return False
        return robot_id in self._routes.canary_robots or lot(self._candidate, robot_id) < self._routes.canary_share

    def _forget_ended(self) -> None:
        self._held = {episode: version for episode, version in self._held.items() if self._is_open(episode)}
        self._blinded &= self._held.keys()
        self._by_pin &= self._held.keys()


def instruction_or_only(text: str, known: Sequence[str], name: str = "instruction") -> str:
    """The text, or the only known instruction where it is blank; `name` is what the caller's wire calls it.

    Raises ValueError when there is not exactly one: a robot without an instruction would do anything.
    """
    if text.strip():
        return text
    if len(known) == 1:
        return known[0]
    raise ValueError(
        f"{name} is missing, and the policy has {len(known)} instructions, not one: send it, or start the server with"
        " --default-instruction TEXT"
    )


class Dispatcher:
    """The way of every port to the engine. Every method may be called from any thread and none waits for the device.

    `check_rate(robot_id)` raises PermissionError for a robot that sends too many requests. `default_instruction` is
    taken for requests without one; empty: the policy's only one is.
    """

    def __init__(
        self,
        engine: Engine,
        connections: RobotConnections | None = None,
        router: Router | None = None,
        check_rate: Callable[[str], None] | None = None,
        default_instruction: str = "",
    ) -> None:
        self._engine, self._router, self._check_rate = engine, router or Router(), check_rate
        self._default_instruction = default_instruction
        self.connections = connections or RobotConnections()
        self.not_finite: Counter[str] = Counter()
        """results that were rejected because of NaN or infinity, by policy version"""

    def policy(self, robot_id: str, alias: str = "", episode_id: str = "") -> ServedPolicy:
        """Return the policy that would serve this robot now.

        Raises NotFoundError for an alias that names nothing, NoPolicyError before anything is loaded.
        """
        version, current = self._router.version(robot_id, alias, episode_id), self._engine.current
        if current is None:
            raise NoPolicyError("no policy is loaded yet")
        return self._engine.loaded.get(version or "", current)  # one that was just unloaded serves no request

    def known_instructions(self, policy: ServedPolicy) -> tuple[str, ...]:
        """What a request without an instruction may mean: the server's default, else those of the policy."""
        return (self._default_instruction,) if self._default_instruction else tuple(policy.instructions)

    def instruction(self, text: str, policy: ServedPolicy) -> str:
        """The instruction of a request, which may be blank. Raises ValueError where none is known for it."""
        return instruction_or_only(text, self.known_instructions(policy))

    def check(self, robot_id: str, *, polling: bool) -> None:
        """Raise StoppedError for a stopped robot, PermissionError for one that sends too many requests.

        `polling`: the robot sends unary calls, so that a stop cannot be pushed to it.
        """
        if polling:
            self.connections.check_stop(robot_id)
        if self._check_rate is not None:
            self._check_rate(robot_id)

    def submit(
        self,
        observation: Observation,
        *,
        deadline: float,
        explore: bool = False,
        sequence: int = 0,
        session: str = "",
        continuation: PreviousChunk | None = None,
        alias: str = "",
        episode_id: str = "",
        place: str = "",
    ) -> Future[Inference]:
        """Queue one request of `observation.robot_id`; `deadline` is a `time.monotonic()` value.

        A newer request takes over the place of the one that waits: `place` is the robot's where it is empty.

        Raises as `policy` and `Engine.submit` do; pass the result through `check_actions` before a robot gets it.
        """
        submit = partial(
            self._engine.submit,
            observation,
            explore=explore,
            robot_id=place or observation.robot_id,
            sequence=sequence,
            session=session,
            deadline=deadline,
            continuation=continuation,
        )
        version = self._router.version(observation.robot_id, alias, episode_id)
        self.connections.newest.keep(observation)
        try:
            return submit(version=version)
        except NoPolicyError:  # once more when it was unloaded between the decision and the call
            if (again := self._router.version(observation.robot_id, alias, episode_id)) == version:
                raise
            return submit(version=again)

    def check_actions(self, inference: Inference) -> Inference:
        """Return the inference, or raise RuntimeError when an action is NaN or infinite: no robot may get it."""
        sample, version = inference.sample, inference.policy.version
        if not np.isfinite(sample.actions).all():
            self.not_finite[version] += 1
            raise RuntimeError(f"policy {version} returned actions that are not finite, seed {sample.seed}")
        return inference
