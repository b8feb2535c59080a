"""The one thing this wire asks of the service: who answers this robot, and a chunk for this observation."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from pirl_contract import Observation
from pirl_server.policy.sample import ServedPolicy
from pirl_server.serving import Engine, Inference, NoPolicyError
from pirl_server.serving.router import Router

MAX_WAIT_S = 30.0
"""the wire knows no deadlines, so every request has this one"""


class Door(Protocol):
    """Both methods are called from the event loop and must not wait."""

    def policy(self, robot_id: str) -> ServedPolicy:
        """Return who would answer this robot now. Raises NoPolicyError."""

    def submit(self, observation: Observation) -> Future[Inference]:
        """Queue one request of `observation.robot_id`.

        Raises BusyError, NoPolicyError and PermissionError (asked too often) at once.
        """


class EngineDoor:
    """The engine's door; each request goes to the version that the router says, as a request without an episode does.

    Chunks are deterministic: without episodes there is nothing to explore for. `check_rate(robot_id)` raises
    PermissionError for a robot that asks too often.
    """

    def __init__(
        self, engine: Engine, router: Router | None = None, check_rate: Callable[[str], None] | None = None
    ) -> None:
        self._engine, self._router, self._check_rate = engine, router or Router(), check_rate
        self._sequence = itertools.count(1)  # the wire has none; one that rises for all rises for each robot

    def policy(self, robot_id: str) -> ServedPolicy:
        """Return who would answer this robot now. Raises NoPolicyError before anything is loaded."""
        version, current = self._router.version(robot_id), self._engine.current
        if current is None:
            raise NoPolicyError("no policy is loaded yet")
        return self._engine.loaded.get(version or "", current)

    def submit(self, observation: Observation) -> Future[Inference]:
        """Queue one request."""
        if self._check_rate is not None:
            self._check_rate(observation.robot_id)
        submit = partial(
            self._engine.submit,
            observation,
            explore=False,
            robot_id=observation.robot_id,
            sequence=next(self._sequence),
            deadline=time.monotonic() + MAX_WAIT_S,
        )
        return self._router.ask(lambda version: submit(version=version), observation.robot_id)
