"""Maps each robot to a policy version. Pure functions: no device, no disk.

Without an alias, or with `production`: the version that the robot is pinned to; else the candidate for the robots of
the canary, by list or by share; else whichever version is production. Only robots that would get the candidate anyway
may ask for it by name: no robot goes past the gate by a word in its request. `shadow` never drives a robot.

What takes effect when: promoting or rolling back production reaches every robot that follows it with its next chunk,
also within an episode (each chunk names its version), so that a bad version is gone at once. Pins and canary are
decided when an episode begins and hold until it ends; without an episode every request is routed by itself. Recalling
the candidate is a rollback: its running episodes continue with production from their next chunk.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from pirl_server.registry.promotion import PRODUCTION
from pirl_server.registry.routing_rules import CANDIDATE, SHADOW, Routes
from pirl_server.rpc.denied import DeniedError
from pirl_server.serving.errors import NoPolicyError
from pirl_server.serving.grpc_status import NotFoundError

Answer = TypeVar("Answer")


def lot(*words: str) -> float:
    """A number in [0, 1) that is the same for the same words, in every process."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


class Router:
    """Every method may be called from any thread, and none waits.

    `is_open(episode_id)` says whether an episode still runs: what was decided for it is forgotten after its end.
    """

    def __init__(self, is_open: Callable[[str], bool] = lambda _: True) -> None:
        self._is_open = is_open
        self._lock = threading.Lock()
        self._routes, self._candidate = Routes(), ""
        self._held: dict[str, str | None] = {}

    def change(self, routes: Routes, candidate: str | None) -> None:
        """Decide by these from now on; running episodes keep what was decided for them."""
        with self._lock:
            self._routes, self._candidate = routes, candidate or ""

    def recall(self, version: str) -> None:
        """Let the running episodes that were given this version continue with production."""
        with self._lock:
            self._held = {episode: None if held == version else held for episode, held in self._held.items()}

    def begin(self, episode_id: str, robot_id: str, alias: str = "") -> str | None:
        """Decide for a whole episode; return what `version` then returns for its requests."""
        with self._lock:
            self._forget_ended()
            self._held[episode_id] = chosen = self._choose(robot_id, alias)
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

    def ask(
        self, submit: Callable[[str | None], Answer], robot_id: str, alias: str = "", episode_id: str = ""
    ) -> Answer:
        """Call `submit` with the version; once more when that one was unloaded between the decision and the call."""
        version = self.version(robot_id, alias, episode_id)
        try:
            return submit(version)
        except NoPolicyError:
            if (again := self.version(robot_id, alias, episode_id)) == version:
                raise
            return submit(again)

    def in_use(self) -> set[str]:
        """Versions, besides production, that a robot may be answered by: none of these may be unloaded."""
        with self._lock:
            self._forget_ended()
            named: Iterable[str | None] = (self._candidate, *self._routes.pins.values(), *self._held.values())
            return {version for version in named if version}

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
