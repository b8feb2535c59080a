"""One request: bytes of an observation in, bytes of a reply out, or an error message."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.metadata import version
from typing import Any

from pirl_contract import Observation
from pirl_server.openpi_wire.msgpack_numpy import pack, unpack
from pirl_server.openpi_wire.observation_keys import Keys
from pirl_server.policy.served_policy import ServedPolicy
from pirl_server.serving.errors import BusyError, ExpiredError, NoPolicyError, StoppedError, SupersededError
from pirl_server.serving.request_queue import Inference
from pirl_server.serving.router import MAX_WAIT_S, Dispatcher

REFUSALS = (ValueError, PermissionError, BusyError, ExpiredError, NoPolicyError, StoppedError, SupersededError)
"""their words are for the client; whatever else is raised stays in the log"""
LARGE_BYTES = 1024 * 1024
"""a message that takes milliseconds to decode and shrink does it beside the event loop"""
_LOG = logging.getLogger(__name__)


def metadata(policy: ServedPolicy, keys: Keys, instructions: Sequence[str]) -> bytes:
    """Return the first message of a connection: what is served and which keys are looked for."""
    facts = {
        "server": f"pirl {version('pirl')}",
        "policy_name": policy.name,
        "policy_version": policy.version,
        "action_horizon": policy.horizon,
        "execute_horizon": policy.execute_horizon,
        "rate_hz": policy.contract.rate_hz,
        "instructions": list(instructions),
        "keys": keys.expected(policy.contract),
        "contract_json": policy.contract.to_json(),
    }
    return pack(facts)


class Answerer:
    """Answers the requests of one connection, one after the other; the event loop is never held for long.

    `over` is done, with a reason, when no chunk may leave any more: the client is gone, or its robot was stopped.
    `client` is unique among connections: a request is never given up for that of another client of the same token.
    """

    def __init__(
        self, dispatcher: Dispatcher, keys: Keys, robot_id: str, client: str, over: asyncio.Future[Exception]
    ) -> None:
        self._dispatcher, self._keys, self._robot_id, self._over = dispatcher, keys, robot_id, over
        self._client = client
        self._previous_ms: float | None = None
        self.version = ""
        """that gave the last chunk"""

    async def reply(self, data: str | bytes) -> bytes | str:
        """Return the reply, a text for a rejection. `over` done before it: the request leaves the queue."""
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
        self._dispatcher.check(self._robot_id, polling=False)
        policy = self._dispatcher.policy(self._robot_id)
        if len(data) > LARGE_BYTES:
            observation = await asyncio.to_thread(self._read, data, policy)
        else:
            observation = self._read(data, policy)
        # deterministic: without an episode there is nothing to explore for; the wire knows no deadlines
        future = self._dispatcher.submit(observation, deadline=time.monotonic() + MAX_WAIT_S, place=self._client)
        return self._dispatcher.check_actions(await _first(future, self._over))

    def _read(self, data: bytes, policy: ServedPolicy) -> Observation:
        known = self._dispatcher.known_instructions(policy)
        return self._keys.observation(unpack(data), policy.contract, known, self._robot_id)

    def _packed(self, inference: Inference, infer_ms: float) -> bytes:
        actions, policy = inference.sample.actions, inference.policy
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
