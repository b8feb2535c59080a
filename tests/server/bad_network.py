"""A network that misbehaves as it is told: a proxy of session streams that holds each answer until it is let go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc


class BadNetwork(policy_pb2_grpc.PolicyServiceServicer):
    """Chunks are held; everything else passes."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = policy_pb2_grpc.PolicyServiceStub(self._channel)
        self._out: SimpleQueue[pb.SessionReply | None] = SimpleQueue()
        self.asked: list[pb.InferRequest] = []
        self.held: SimpleQueue[pb.SessionReply] = SimpleQueue()
        """chunks that have not been let through, in the order of their answers"""

    def Session(self, requests: Iterator[pb.SessionRequest], context: Any) -> Iterator[pb.SessionReply]:
        upstream = self._stub.Session(self._outgoing(requests))
        context.add_callback(upstream.cancel)
        threading.Thread(target=self._incoming, args=(upstream,), daemon=True).start()
        yield from iter(self._out.get, None)

    def _outgoing(self, requests: Iterator[pb.SessionRequest]) -> Iterator[pb.SessionRequest]:
        with suppress(grpc.RpcError):  # the client hung up
            for request in requests:
                if request.HasField("infer"):
                    self.asked.append(request.infer)
                yield request

    def _incoming(self, upstream: Any) -> None:
        with suppress(grpc.RpcError):  # the client or the server hung up
            for reply in upstream:
                (self.held if reply.HasField("infer") else self._out).put(reply)
        self._out.put(None)

    def pass_on(self, reply: pb.SessionReply) -> None:
        """Let a chunk through; a second time it is a duplicate."""
        self._out.put(reply)

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Serve on a free port; yields the address."""
        server = grpc.server(ThreadPoolExecutor(4))
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()
        self._channel.close()
