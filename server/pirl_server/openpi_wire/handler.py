"""One request: bytes of an observation in, bytes of a reply out, or an error message."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from pirl_contract import Observation
from pirl_contract.names import check_robot_id
from pirl_server.openpi_wire.msgpack_numpy import pack, unpack
from pirl_server.openpi_wire.observation_keys import Keys
from pirl_server.policy.served_policy import ServedPolicy
from pirl_server.serving.batch import Inference
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import BusyError, ExpiredError, NoPolicyError, StoppedError, SupersededError
from pirl_server.serving.router import Router

REFUSALS = (ValueError, PermissionError, BusyError, ExpiredError, NoPolicyError, StoppedError, SupersededError)
"""their words are for the client; whatever else is raised stays in the log"""
LARGE_BYTES = 1024 * 1024
"""a message that takes milliseconds to decode and shrink does it beside the event loop"""
_LOG = logging.getLogger(__name__)


def metadata(policy: ServedPolicy, keys: Keys) -> bytes:
    """Return the first message of a connection: what is served and which keys are looked for."""
    facts = {
        "server": f"pirl {version('pirl')}",
        "policy_name": policy.name,
        "policy_version": policy.version,
        "action_horizon": policy.horizon,
        "execute_horizon": policy.execute_horizon,
        "rate_hz": policy.contract.rate_hz,
        "instructions": list(policy.instructions),
        "keys": keys.expected(policy.contract),
        "contract_json": policy.contract.to_json(),
    }
    return pack(facts)


class Answerer:
    """Answers the requests of one connection, one after the other; the event loop is never held for long.

    `over` is done, with a reason, when no chunk may leave any more: the client is gone, or its robot was stopped.
    """

    def __init__(self, door: Door, keys: Keys, robot_id: str, over: asyncio.Future[Exception]) -> None:
        self._door, self._keys, self._robot_id, self._over = door, keys, robot_id, over
        self._previous_ms: float | None = None
        self.version = ""
        """that gave the last chunk"""

    async def reply(self, data: str | bytes) -> bytes | str:
        """Return the reply, a text for a refusal. `over` done before it: the request leaves the queue."""
        started = time.monotonic()
        try:
            inference = await self._inference(data)
            self.version = inference.policy.version
            reply = self._packed(inference, 1000 * (time.monotonic() - started))
        except REFUSALS as error:
            return str(error.args[0]) if error.args else type(error).__name__
        except Exception:
            _LOG.exception("a request of %s failed", self._robot_id)
            return "internal error: see the server's log"
        self._previous_ms = 1000 * (time.monotonic() - started)
        return reply

    async def _inference(self, data: str | bytes) -> Inference:
        if self._over.done():
            raise self._over.result()
        if isinstance(data, str):
            raise ValueError("an observation must be a binary msgpack frame, got a text frame")
        policy = self._door.policy(self._robot_id)
        if len(data) > LARGE_BYTES:
            observation = await asyncio.to_thread(self._read, data, policy)
        else:
            observation = self._read(data, policy)
        return await _first(self._door.submit(observation), self._over)

    def _read(self, data: bytes, policy: ServedPolicy) -> Observation:
        return self._keys.observation(unpack(data), policy.contract, policy.instructions, self._robot_id)

    def _packed(self, inference: Inference, infer_ms: float) -> bytes:
        actions, policy = inference.sample.actions, inference.policy
        if not np.isfinite(actions).all():
            raise RuntimeError(
                f"policy {policy.version} sampled actions that are not finite, seed {inference.sample.seed}"
            )
        server_timing: dict[str, Any] = {"infer_ms": infer_ms}
        if self._previous_ms is not None:
            server_timing["prev_total_ms"] = self._previous_ms
        return pack(
            {
                "actions": actions,
                "policy_version": policy.version,
                "policy_timing": {"infer_ms": inference.infer_ms, "queue_ms": inference.queue_ms},
                "server_timing": server_timing,
            }
        )


async def _first(future: Future[Inference], over: asyncio.Future[Exception]) -> Inference:
    """Wait for the engine or for the end, whichever comes first."""
    answer = asyncio.wrap_future(future)
    waited: set[asyncio.Future[Any]] = {answer, over}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if over.done():
        answer.cancel()
        raise over.result()
    return answer.result()


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
        attendance: RobotConnections | None = None,
    ) -> None:
        self._engine, self._router, self._check_rate = engine, router or Router(), check_rate
        self._attendance = attendance or RobotConnections()
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
