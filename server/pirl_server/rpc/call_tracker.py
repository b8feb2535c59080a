"""Pairs requests with replies, for metrics, spans and logs of gRPC calls."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from pirl_contract.names import is_name
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.grpc_options import STATUS_BY_NUMBER

INVALID = "(invalid)"
"""no robot can be called that"""
_PROCESS, _NUMBERS = uuid.uuid4().hex[:12], itertools.count(1)


@dataclass(slots=True)  # not frozen: that costs more than all the rest of a call
class Call:
    """One request on its way, within a session or alone."""

    rpc: str
    """last part of the method's name: Infer"""
    request: Any
    began_ns: int
    """Unix time, for spans and people; durations are taken from `clock`"""
    clock: float
    metadata: Mapping[str, str]
    peer: str
    request_id: str

    @property
    def robot_id(self) -> str:
        """Empty for calls that name none, INVALID for a name that breaks the rule and may be of any length."""
        robot_id = str(getattr(self.request, "robot_id", ""))
        return robot_id if not robot_id or is_name(robot_id) else INVALID

    @property
    def seconds(self) -> float:
        """How long it has been on its way."""
        return time.perf_counter() - self.clock


class Listener(Protocol):
    """Notified when calls start and end."""

    def began(self, call: Call) -> None:
        """A request was read; in the thread that handles it, unless it came in a session."""

    def ended(self, call: Call, reply: Message | None, code: str) -> None:
        """It was answered, or rejected with `code`: then `reply` is None. `code` is OK or another gRPC status."""


class CallTracker:
    """A watcher that notifies its listeners, in order, of calls begun and ended, those within sessions too."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def opened(self, rpc: str, metadata: Mapping[str, str], peer: str) -> _Pairs:
        """Begin one call or session."""
        return _Pairs(self._listeners, rpc, metadata, peer)


class _Pairs:
    def __init__(self, listeners: Sequence[Listener], rpc: str, metadata: Mapping[str, str], peer: str) -> None:
        self._listeners, self._metadata, self._peer = listeners, metadata, peer
        self._stream_id = metadata.get("x-request-id", "")[:64] or f"{_PROCESS}{next(_NUMBERS):x}"
        self._rpc, self._began_ns, self._clock = rpc, time.time_ns(), time.perf_counter()
        self._pending: dict[int, Call] = {}
        self._answered = False

    def request(self, rpc: str, message: Message, id: int) -> None:
        call = self._pending[id] = self._call(rpc, message, id)
        for listener in self._listeners:
            listener.began(call)

    def reply(self, id: int, message: Message) -> None:
        if (call := self._pending.pop(id, None)) is None:
            return
        self._answered = id == 0
        if isinstance(message, pb.Refusal):
            code = STATUS_BY_NUMBER.get(message.code, grpc.StatusCode.UNKNOWN)
            self._ended(call, None, code.name)
        else:
            self._ended(call, message, "OK")

    def closed(self, code: grpc.StatusCode) -> None:
        while self._pending:
            id_, call = self._pending.popitem()
            self._answered = self._answered or id_ == 0
            self._ended(call, None, code.name if code is not grpc.StatusCode.OK else "CANCELLED")
        if not self._answered:
            # the stream as a whole, or a call that ended before its request was read
            whole = self._call(self._rpc, None, 0)
            whole.began_ns, whole.clock = self._began_ns, self._clock
            self._ended(whole, None, code.name)

    def _ended(self, call: Call, reply: Message | None, code: str) -> None:
        for listener in self._listeners:
            listener.ended(call, reply, code)

    def _call(self, rpc: str, message: Message | None, id: int) -> Call:
        name, request_id = rpc.rpartition("/")[2], f"{self._stream_id}-{id}" if id else self._stream_id
        return Call(name, message, time.time_ns(), time.perf_counter(), self._metadata, self._peer, request_id)
