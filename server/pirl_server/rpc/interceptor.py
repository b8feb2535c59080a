"""Interceptor that lets observers see each request and reply, and the tracker that pairs the two for them.

A session is one call that carries many; watchers see each of them as if it had come alone.
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message

from pirl_contract.names import is_name
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.grpc_options import RETRY_AFTER, SERVICE_PATH, STATUS_BY_NUMBER
from pirl_server.rpc.denied import DeniedError

_LOG = logging.getLogger(__name__)
AnyMessage = TypeVar("AnyMessage", bound=Message)
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
Unary: TypeAlias = Callable[[Message, grpc.ServicerContext], Message]
UnaryStream: TypeAlias = Callable[[Message, grpc.ServicerContext], Iterator[Message]]
StreamStream: TypeAlias = Callable[[Iterator[Message], grpc.ServicerContext], Iterator[Message]]


class CallWatch(Protocol):
    """Looks at one call, or at one session with all its calls. Requests and replies may come from two threads."""

    def request(self, rpc: str, message: Message, id: int) -> None:
        """See a request before it is handled; `rpc` is its full name, `id` is 0 outside a session.

        Raises DeniedError to reject it.
        """

    def reply(self, id: int, message: Message) -> None:
        """See the reply to the request of that id; within a session it may be a `pb.Refusal`."""

    def closed(self, code: grpc.StatusCode) -> None:
        """See how the call, or the session, ended. Called once."""


class Watcher(Protocol):
    """Makes a CallWatch for each call."""

    def opened(self, rpc: str, metadata: Mapping[str, str], peer: str) -> CallWatch:
        """See a call begin, before its first request is read. Raises DeniedError to reject it."""


class Watched:
    """All watchers around one call, in order; the first that rejects ends it and those before it see the end."""

    def __init__(self, watchers: Sequence[Watcher], rpc: str) -> None:
        self._watchers, self._rpc = watchers, rpc
        self._watches: list[CallWatch] = []

    def open(self, metadata: Metadata | None, peer: str) -> None:
        """Begin. Raises DeniedError."""
        words = {key: value for key, value in metadata or () if isinstance(value, str)}
        for watcher in self._watchers:
            self._watches.append(watcher.opened(self._rpc, words, peer))

    def request(self, message: AnyMessage) -> AnyMessage:
        """Show a request and return it. Raises DeniedError."""
        rpc, id_, inner = self._rpc, 0, cast(Message, message)
        if isinstance(message, pb.SessionRequest):
            if (call := message.WhichOneof("call")) is None:
                return message  # the service returns an error for it
            rpc, id_, inner = _RPC_OF[call], message.id, getattr(message, call)
        for watch in self._watches:
            watch.request(rpc, inner, id_)
        return message

    def reply(self, message: AnyMessage) -> AnyMessage:
        """Show a reply and return it; events, which answer nothing, are passed by."""
        id_, inner = 0, cast(Message, message)
        if isinstance(message, pb.SessionReply):
            if (kind := message.WhichOneof("reply")) in (None, "event"):
                return message
            id_, inner = message.id, getattr(message, kind)
        for watch in self._watches:
            watch.reply(id_, inner)
        return message

    def close(self, code: grpc.StatusCode) -> None:
        """Show the end."""
        for watch in self._watches:
            watch.closed(code)


# get_info -> the path of GetInfo: the fields of the session are named after the calls
_RPC_OF = {
    field.name: SERVICE_PATH + "".join(word.capitalize() for word in field.name.split("_"))
    for field in pb.SessionRequest.DESCRIPTOR.oneofs_by_name["call"].fields
}


STATUS = {
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "too-many-requests": grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # gRPC has no types
    """Shows every call, streamed or not, to the watchers; a DeniedError of theirs becomes the call's status.

    Within a session it becomes the answer to that message, and the session continues unless its token is no longer
    valid.
    """

    def __init__(self, watchers: Sequence[Watcher], public: Collection[str]) -> None:
        """Calls named in `public` need no token and are not shown to observers: health."""
        self._watchers, self._public = tuple(watchers), frozenset(public)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Wrap the handler that would answer; an unknown method stays UNIMPLEMENTED, health is left alone."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method in self._public:
            return handler
        return _watched(handler, lambda: Watched(self._watchers, handler_call_details.method))


def _watched(handler: grpc.RpcMethodHandler, watch: Callable[[], Watched]) -> grpc.RpcMethodHandler:
    codecs = (handler.request_deserializer, handler.response_serializer)
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(_stream_stream(handler.stream_stream, watch), *codecs)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(_unary_stream(handler.unary_stream, watch), *codecs)
    assert not handler.request_streaming, "no service of ours only streams requests"
    return grpc.unary_unary_rpc_method_handler(_unary_unary(handler.unary_unary, watch), *codecs)


def _unary_unary(behave: Unary, watch: Callable[[], Watched]) -> Unary:
    def watched(request: Message, context: grpc.ServicerContext) -> Message:
        with _status(watch(), context) as call:
            return call.reply(behave(call.request(request), context))

    return watched


def _unary_stream(behave: UnaryStream, watch: Callable[[], Watched]) -> UnaryStream:
    def watched(request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
        with _status(watch(), context) as call:
            for reply in behave(call.request(request), context):
                yield call.reply(reply)

    return watched


def _stream_stream(behave: StreamStream, watch: Callable[[], Watched]) -> StreamStream:
    def watched(requests: Iterator[Message], context: grpc.ServicerContext) -> Iterator[Message]:
        with _status(watch(), context) as call:
            for reply in behave(_shown(requests, call, context), context):
                yield call.reply(reply)

    return watched


def _shown(requests: Iterator[Message], call: Watched, context: grpc.ServicerContext) -> Iterator[Message]:
    for request in requests:
        try:
            yield call.request(request)
            continue
        except DeniedError as denied:
            if denied.kind == "unauthenticated" or not isinstance(request, pb.SessionRequest):
                _abort(context, denied)
            code, wait_ms = STATUS[denied.kind].value[0], retry_after_ms(denied)
            refusal = pb.Refusal(code=code, message=str(denied), retry_after_ms=wait_ms)
        yield pb.SessionReply(id=request.id, error=refusal)  # a session passes on what is answered already


@contextmanager
def _status(call: Watched, context: grpc.ServicerContext) -> Iterator[Watched]:
    try:
        call.open(context.invocation_metadata(), context.peer())
        yield call
    except DeniedError as denied:
        call.close(STATUS[denied.kind])
        _abort(context, denied)
    except GeneratorExit:  # the client is gone, or the server stops
        call.close(grpc.StatusCode.CANCELLED)
        raise
    except BaseException as error:
        if context.code() is None and isinstance(error, Exception):  # else it is `abort` that raises
            _LOG.error("a call failed", exc_info=error)
            call.close(grpc.StatusCode.INTERNAL)
            context.abort(grpc.StatusCode.INTERNAL, "internal error: see the server's log")  # gRPC would send its text
        call.close(context.code() or grpc.StatusCode.UNKNOWN)
        raise
    else:
        call.close(context.code() or grpc.StatusCode.OK)


def _abort(context: grpc.ServicerContext, denied: DeniedError) -> NoReturn:
    if denied.retry_after_s:
        context.set_trailing_metadata(((RETRY_AFTER, str(retry_after_ms(denied))),))
    context.abort(STATUS[denied.kind], str(denied))
    raise AssertionError("abort raises")


def retry_after_ms(denied: DeniedError) -> int:
    """Return the wait in whole milliseconds, never too short."""
    return -int(-1000 * denied.retry_after_s // 1)


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
    """Unix time, for spans and people; `seconds` is taken from `clock`"""
    clock: float
    metadata: Mapping[str, str]
    peer: str
    request_id: str
    robot_id: str
    """empty for calls that name none, INVALID for a name that breaks the rule and may be of any length"""
    seconds: float = 0.0
    """from request to reply, known when it has ended"""


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
        call.seconds = time.perf_counter() - call.clock
        for listener in self._listeners:
            listener.ended(call, reply, code)

    def _call(self, rpc: str, message: Message | None, id: int) -> Call:
        name, request_id = rpc.rpartition("/")[2], f"{self._stream_id}-{id}" if id else self._stream_id
        robot_id = str(getattr(message, "robot_id", ""))
        if robot_id and not is_name(robot_id):
            robot_id = INVALID
        return Call(
            name, message, time.time_ns(), time.perf_counter(), self._metadata, self._peer, request_id, robot_id
        )
