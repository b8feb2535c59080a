"""A session spoken by hand, and a policy that is held."""

from __future__ import annotations

import queue
import threading
from typing import Any

import grpc
from patience import patient

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc

WAIT_S = 20.0


class Talk:
    """One session of one robot."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = policy_pb2_grpc.PolicyServiceStub(self._channel).Session(iter(self._requests.get, None))
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.ended: grpc.StatusCode | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def say(self, id: int, **call: Any) -> None:
        self._requests.put(pb.SessionRequest(id=id, **call))

    def hear(self) -> Any:
        return self._replies.get(timeout=patient(WAIT_S))

    def ask(self, id: int, **call: Any) -> Any:
        self.say(id, **call)
        reply = self.hear()
        assert reply.id == id
        return reply

    def done(self) -> grpc.StatusCode:
        """Say nothing more; how the session then ends."""
        self._requests.put(None)
        self._reader.join(patient(WAIT_S))
        return self.call.code()

    def close(self) -> None:
        self._requests.put(None)
        self.call.cancel()
        self._reader.join(patient(WAIT_S))
        self._channel.close()

    def _read(self) -> None:
        try:
            for reply in self.call:
                self._replies.put(reply)
        except grpc.RpcError:
            return


class Hold(threading.Event):
    def __init__(self) -> None:
        super().__init__()
        self.armed, self.entered = threading.Event(), threading.Event()

    def wait_here(self) -> None:
        if self.armed.is_set():
            self.entered.set()
            self.wait(patient(WAIT_S))
