"""The two transports for clients with an event loop. See `transport` for their behaviour."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.errors import RefusedError, of_error, of_refusal
from pirl_contract.wire.grpc_options import SERVICE_PATH, SESSION_PATH
from pirl_contract.wire.image_codec import WireImage
from pirl_contract.wire.transport import (
    BACKOFF_S,
    HELLO,
    HELLO_TIMEOUT_S,
    NO_IMAGES,
    UNARY,
    session_bytes,
    unary_bytes,
)

SILENCE_S = 1.0
"""how long a server is given to reject a stream on which nothing is written"""


class AsyncTransport(Protocol):
    """Carries one call at a time."""

    async def call(
        self, name: str, request: Any, timeout_s: float, wire_images: Mapping[str, WireImage] = NO_IMAGES
    ) -> Any:
        """Return the reply. Raises RefusedError."""

    async def close(self) -> None:
        """Abandon what is under way."""


class AsyncUnaryTransport:
    """Each call on its own."""

    def __init__(self, channel: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self._metadata = tuple(metadata)
        self._methods = {
            name: channel.unary_unary(
                SERVICE_PATH + method, request_serializer=None, response_deserializer=reply.FromString
            )
            for name, (method, reply) in UNARY.items()
        }

    async def call(
        self, name: str, request: Any, timeout_s: float, wire_images: Mapping[str, WireImage] = NO_IMAGES
    ) -> Any:
        """Return the reply. Raises RefusedError."""
        data = unary_bytes(request, wire_images)
        try:
            return await self._methods[name](data, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise of_error(error) from None

    async def close(self) -> None:
        """Nothing is kept between calls."""


class AsyncSessionTransport:
    """Keeps one stream for one robot; a task reads it and opens it again when it breaks."""

    def __init__(
        self,
        channel: Any,
        metadata: Sequence[tuple[str, str]],
        hello: Callable[[], pb.GetInfoRequest],
        on_hello: Callable[[pb.GetInfoReply], None],
        on_event: Callable[[pb.ServerEvent], None] | None,
    ) -> None:
        self._metadata, self._hello, self._on_hello, self._on_event = tuple(metadata), hello, on_hello, on_event
        self._method = channel.stream_stream(
            SESSION_PATH, request_serializer=None, response_deserializer=pb.SessionReply.FromString
        )
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._ids = itertools.count(HELLO + 1)
        self._waiting: dict[int, asyncio.Future[pb.SessionReply]] = {}
        self._attempt = 0
        self._heard = False
        self._one_writer = asyncio.Lock()

    async def call(
        self, name: str, request: Any, timeout_s: float, wire_images: Mapping[str, WireImage] = NO_IMAGES
    ) -> Any:
        """Return the reply. Raises RefusedError."""
        self._open()
        id, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._waiting[id] = answer
        try:
            # a write waits for the connection; cancelled, it takes the stream with it, and nothing old is sent later
            sending = asyncio.ensure_future(self._write(session_bytes(id, name, request, timeout_s, wire_images)))
            reply = await asyncio.wait_for(answer, timeout_s)
        except asyncio.TimeoutError:
            raise RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "no reply in time") from None
        finally:
            del self._waiting[id]
            sending.cancel()
        if reply.HasField("error"):
            raise of_refusal(reply.error)
        return getattr(reply, name)

    async def close(self) -> None:
        """Abandon what is under way."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait([reader])
        if self._call is not None:
            self._call.cancel()
        self._fail(RefusedError(grpc.StatusCode.CANCELLED, "the client is closed"))

    def _open(self) -> None:
        """Have a stream and its reader; a reader that waits to try again is replaced by one that tries now."""
        if self._call is not None:
            return
        if self._reader is not None:
            self._reader.cancel()
        self._call = self._method(metadata=self._metadata)
        self._reader = asyncio.ensure_future(self._read())

    async def _write(self, data: bytes) -> None:
        call = self._call
        try:
            async with self._one_writer:
                await call.write(data)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the reader gets the reason and notifies the waiting calls

    async def _read(self) -> None:
        while True:
            self._heard = False
            hello = session_bytes(HELLO, "get_info", self._hello(), HELLO_TIMEOUT_S, NO_IMAGES)
            greeting = asyncio.ensure_future(self._write(hello))
            lost = await self._replies()
            greeting.cancel()
            self._call = None
            self._fail(lost)
            if lost.code is grpc.StatusCode.UNIMPLEMENTED:
                return
            await asyncio.sleep(BACKOFF_S[min(self._attempt, len(BACKOFF_S) - 1)])
            self._attempt += 1
            self._call = self._method(metadata=self._metadata)

    async def _replies(self) -> RefusedError:
        try:
            while (reply := await self._call.read()) is not grpc.aio.EOF:
                self._take(reply)
            return _ended(await self._call.code())
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INTERNAL and not self._heard:
                return _ended(await self._silent_code())
            return of_error(error)

    async def _silent_code(self) -> grpc.StatusCode:
        """Ask how a stream ends on which nothing is written.

        A server that knows no session ends the stream while the client writes. When the write fails before that end is
        read, grpcio puts INTERNAL in the place of the server's code.
        """
        return await self._method(metadata=self._metadata, timeout=SILENCE_S).code()

    def _take(self, reply: pb.SessionReply) -> None:
        self._attempt, self._heard = 0, True
        answer = self._waiting.get(reply.id)
        if answer is not None and not answer.done():
            answer.set_result(reply)
        elif reply.HasField("event") and self._on_event is not None:
            self._on_event(reply.event)
        elif reply.id == HELLO and reply.HasField("get_info"):
            self._on_hello(reply.get_info)

    def _fail(self, lost: RefusedError) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(lost)


def _ended(code: grpc.StatusCode) -> RefusedError:
    silent = code in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED)
    return RefusedError(grpc.StatusCode.UNAVAILABLE if silent else code, "session ended")
