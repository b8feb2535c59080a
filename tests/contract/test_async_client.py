"""The asyncio client against a gRPC server on a loopback socket, over unary calls and over the session's fallback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from contract_fakes import CONTRACT, FakeEnv, ScriptedService, serving
from patience import patient

from pirl_contract.async_client import AsyncPolicyClient
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.async_transport import AsyncSessionTransport
from pirl_contract.wire.errors import RefusedError

OBSERVATION = FakeEnv().reset(0)
Talk = Callable[[AsyncPolicyClient], Awaitable[Any]]


def talk(service: ScriptedService, use: Talk, **options: Any) -> Any:
    async def run(address: str) -> Any:
        client = AsyncPolicyClient(address, "arm", timeout_s=patient(10.0), **options)
        try:
            return await use(client)
        finally:
            await client.close()
            await client.close()

    with serving(service) as address:
        return asyncio.run(run(address))


@pytest.mark.parametrize("transport", ["session", "unary"])
def test_a_chunk_comes_and_the_request_says_who_asks(transport: str) -> None:
    """This server knows no session: such a client falls back."""
    service = ScriptedService()

    async def use(client: AsyncPolicyClient) -> None:
        assert (await client.info()).contract == CONTRACT
        chunk = await client.infer(OBSERVATION)
        np.testing.assert_array_equal(chunk.actions, np.ones((5, 1), np.float32))
        await client.infer(OBSERVATION)

    talk(service, use, transport=transport)
    first, second = service.requests
    assert (first.robot_id, first.contract_hash, first.sequence) == ("arm", CONTRACT.hash, 1)
    assert second.sequence == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, ConnectionError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, TimeoutError),
        (grpc.StatusCode.INVALID_ARGUMENT, ValueError),
    ],
)
def test_each_status_is_one_of_three_errors(code: grpc.StatusCode, kind: type[Exception]) -> None:
    def answer(request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("retry-after-ms", "250"),))
        context.abort(code, "because of this")

    async def use(client: AsyncPolicyClient) -> float:
        with pytest.raises(kind, match="because of this"):
            await client.infer(OBSERVATION)
        return client.retry_after_s

    assert talk(ScriptedService(answer=answer), use) == 0.25


def test_a_server_that_is_not_there_is_a_connection_error_and_a_closed_client_says_so() -> None:
    async def run(transport: str) -> None:
        client = AsyncPolicyClient("127.0.0.1:1", timeout_s=patient(5.0), transport=transport)  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1"):
                await client.infer(OBSERVATION)
        await client.close()
        with pytest.raises(ValueError, match="closed"):
            await client.infer(OBSERVATION)

    for transport in ("session", "unary"):
        asyncio.run(run(transport))


class HastyChannel:
    """A channel whose first streams end as grpcio ends them when a write fails before the server's code is read."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code, self.streams = code, 0

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        return self.open

    def open(self, **options: Any) -> Any:
        self.streams += 1
        return HastyStream(self.code if "timeout" in options else None)


class HastyStream:
    def __init__(self, code: grpc.StatusCode | None) -> None:
        self._code = code

    async def write(self, data: bytes) -> None:
        raise asyncio.InvalidStateError

    async def read(self) -> Any:
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "Internal error from Core"
        )

    async def code(self) -> grpc.StatusCode:
        assert self._code is not None, "a stream that was written to does not know the server's code"
        return self._code

    def cancel(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED),
        (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAUTHENTICATED),
        (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_a_write_that_fails_first_does_not_hide_the_servers_code(code: grpc.StatusCode, told: grpc.StatusCode) -> None:
    async def run() -> grpc.StatusCode:
        hello = pb.GetInfoRequest(robot_id="arm")
        carrier = AsyncSessionTransport(HastyChannel(code), (), lambda: hello, lambda _: None, None)
        with pytest.raises(RefusedError) as refused:
            await carrier.call("get_info", hello, 5.0)
        await carrier.close()
        return refused.value.code

    assert asyncio.run(run()) is told
