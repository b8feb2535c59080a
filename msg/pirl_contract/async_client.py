"""The asyncio client: `PolicyClient` with `await` before each call, for programs that run an event loop.

One client serves one robot; calls of one client are made one after the other. Failures are those of `PolicyClient`.
Made and used within one running loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from pirl_contract.client import TransportKind
from pirl_contract.clock_sync import ClockSync
from pirl_contract.contract import Contract
from pirl_contract.schema import ActionChunk, Observation, PreviousChunk, StepOutcome
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.addresses import target
from pirl_contract.wire.async_transport import AsyncSessionTransport, AsyncTransport, AsyncUnaryTransport
from pirl_contract.wire.errors import Failures, RefusedError
from pirl_contract.wire.grpc_options import Tls, bearer, client_options, credentials
from pirl_contract.wire.image_codec import WireImage
from pirl_contract.wire.image_encoder import Encoding
from pirl_contract.wire.request_builder import EpisodeReceipt, Label, Mode, PolicyInfo, RequestBuilder
from pirl_contract.wire.transport import NO_IMAGES


class AsyncPolicyClient:
    """Policy over the network. The arguments and methods are those of `PolicyClient`."""

    def __init__(
        self,
        address: str,
        robot_id: str = "robot",
        timeout_s: float = 2.0,
        mode: Mode = "",
        alias: str = "",
        *,
        transport: TransportKind = "session",
        encoding: Encoding = "auto",
        resize_images: bool = False,
        token: str | None = None,
        tls: Tls | None = None,
        on_event: Callable[[pb.ServerEvent], None] | None = None,
        traceparent: Callable[[], str] | None = None,
    ) -> None:
        """`on_event` is called by the loop and must not wait; without one, as in `PolicyClient`."""
        if transport not in ("session", "unary"):
            raise ValueError(f"transport '{transport}' is not known: use 'session' or 'unary'")
        self._asking = RequestBuilder(robot_id, mode, alias, encoding, resize_images, traceparent)
        self._metadata, self._failures = bearer(token), Failures(address)
        options = client_options(tls)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target(address), options=options)
        else:
            self._channel = grpc.aio.secure_channel(target(address), credentials(tls), options=options)
        self.timeout_s, self.retry_after_s = timeout_s, 0.0
        self._closed = False
        self._carrier: AsyncTransport = AsyncUnaryTransport(self._channel, self._metadata)
        if transport == "session":
            asking = self._asking
            self._carrier = AsyncSessionTransport(
                self._channel, self._metadata, asking.get_info, asking.connected, on_event or asking.obey
            )

    @property
    def clock(self) -> ClockSync:
        """How far the server's clock is from this one's."""
        return self._asking.clock

    async def info(self) -> PolicyInfo:
        """Ask what is served; also fixes the contract that later observations are checked against."""
        return self._asking.info(await self._call("get_info", self._asking.get_info()))

    async def start_episode(
        self, contract: Contract, instruction: str, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Begin a logged episode and return its id."""
        request = self._asking.start_episode(contract, instruction, metadata or {})
        return self._asking.started(contract, await self._call("start_episode", request))

    async def infer(
        self,
        observation: Observation,
        outcomes: Iterable[StepOutcome] = (),
        continuation: PreviousChunk | None = None,
    ) -> ActionChunk:
        """Return the chunk for this observation."""
        request, wire_images = self._asking.infer(observation, outcomes, continuation)
        return self._asking.chunk(await self._call("infer", request, wire_images))

    async def report_outcomes(self, outcomes: Iterable[StepOutcome]) -> int:
        """Report outcomes when no `infer` is due; return how many steps the episode has."""
        reply = await self._call("report_outcomes", self._asking.report_outcomes(outcomes))
        return int(reply.steps)

    async def end_episode(
        self,
        outcome: Label,
        label_source: str,
        end_reason: str,
        discard: bool = False,
        outcomes: Iterable[StepOutcome] = (),
    ) -> EpisodeReceipt:
        """Close the episode: it is published (or dropped) when this returns."""
        request = self._asking.end_episode(outcome, label_source, end_reason, discard, outcomes)
        return self._asking.ended(await self._call("end_episode", request))

    async def label_episode(self, outcome: Label, label_source: str, note: str = "", episode_id: str = "") -> Label:
        """Say how an episode went; return what the label was before."""
        request = self._asking.label_episode(outcome, label_source, note, episode_id)
        return self._asking.labelled(await self._call("label_episode", request))

    def reset(self) -> None:
        """Forget the episode; what follows is not logged until `start_episode`."""
        self._asking.reset()

    async def close(self) -> None:
        """Close the connection. Calling it twice changes nothing."""
        self._closed = True
        await self._carrier.close()
        await self._channel.close()
        self._asking.close()

    async def _call(self, name: str, request: Any, wire_images: Mapping[str, WireImage] = NO_IMAGES) -> Any:
        if self._closed:
            raise ValueError("the client is closed")
        try:
            return await self._carrier.call(name, request, self.timeout_s, wire_images)
        except RefusedError as refused:
            failure = refused
        if failure.code is grpc.StatusCode.UNIMPLEMENTED and isinstance(self._carrier, AsyncSessionTransport):
            await self._carrier.close()
            self._carrier = AsyncUnaryTransport(self._channel, self._metadata)
            return await self._call(name, request, wire_images)
        self.retry_after_s = failure.retry_after_s
        raise self._failures.raised(failure, self.timeout_s)
