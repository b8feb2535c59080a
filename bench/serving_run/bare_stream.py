"""A gRPC stream between two Python processes that carries bytes and does nothing else: what the transport costs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import grpc
from payloads import ACTION_DIM, HORIZON, STATE_DIM

from pirl_contract.wire.grpc_options import wire_options

SERVICE, METHOD = "bench.Bytes", "Stream"
REQUEST, REPLY = bytes(4 * STATE_DIM + 200), bytes(4 * HORIZON * ACTION_DIM + 300)
"""about as long as a request without images and its reply"""


def serve_bytes() -> tuple[grpc.Server, int]:
    """Answer each message of a stream; returns the server and its port."""

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in requests:
            yield REPLY

    server = grpc.server(ThreadPoolExecutor(8), options=[*wire_options(), ("grpc.http2.max_ping_strikes", 0)])
    handlers = {METHOD: grpc.stream_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


class ByteStream:
    """The client of one stream."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=wire_options())
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        self._replies: Any = self._channel.stream_stream(f"/{SERVICE}/{METHOD}")(iter(self._requests.get, None))

    def ask(self) -> None:
        """One message there and one back."""
        self._requests.put(REQUEST)
        assert next(self._replies) == REPLY
