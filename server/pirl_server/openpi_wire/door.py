"""What this wire asks of the service: who answers this robot, a chunk for this observation, and to hear of stops."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from pirl_contract import Observation
from pirl_contract.names import check_robot_id
from pirl_server.policy.served_policy import ServedPolicy
from pirl_server.serving.batch import Inference
from pirl_server.serving.connections import Attendance
from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import NoPolicyError
from pirl_server.serving.router import Router

MAX_WAIT_S = 30.0
"""the wire knows no deadlines, so every request has this one"""


class Door(Protocol):
    """Every method is called from the event loop and must not wait."""

    def policy(self, robot_id: str) -> ServedPolicy:
        """Return who would answer this robot now. Raises NoPolicyError."""

    def submit(self, observation: Observation) -> Future[Inference]:
        """Queue one request of `observation.robot_id`.

        Raises BusyError, NoPolicyError and PermissionError (asked too often) at once.
        """

    def join(self, robot_id: str, address: str, notify: Callable[[Any], None]) -> None:
        """Note a connection; `notify(event)` is called from any thread with each `pb.ServerEvent`.

        Raises ValueError for an id that no stop could reach, BusyError when there are too many robots.
        """

    def leave(self, robot_id: str, notify: Callable[[Any], None]) -> None:
        """Note that the connection has ended."""

    def seen(self, robot_id: str, address: str, version: str) -> None:
        """Note that the robot got a chunk of this version."""


class EngineDoor:
    """The engine's door; each request goes to the version that the router says, as a request without an episode does.

    Chunks are deterministic: without episodes there is nothing to explore for. `check_rate(robot_id)` raises
    PermissionError for a robot that asks too often.
    """

    def __init__(
        self,
        engine: Engine,
        router: Router | None = None,
        check_rate: Callable[[str], None] | None = None,
        attendance: Attendance | None = None,
    ) -> None:
        self._engine, self._router, self._check_rate = engine, router or Router(), check_rate
        self._attendance = attendance or Attendance()
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

    def join(self, robot_id: str, address: str, notify: Callable[[Any], None]) -> None:
        """List the robot among the connected ones. Connecting is how a client of this wire begins anew after a stop."""
        self._attendance.lift_stop(robot_id, address)
        self._attendance.join(check_robot_id(robot_id), address, notify)

    def leave(self, robot_id: str, notify: Callable[[Any], None]) -> None:
        """List it as gone."""
        self._attendance.leave(robot_id, notify)

    def seen(self, robot_id: str, address: str, version: str) -> None:
        """List what last answered it."""
        self._attendance.seen(robot_id, address, version)
