"""Interceptor that lets observers see each request and reply.

A session is one call that carries many; watchers see each of them as if it had come alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.rpc.denied import DeniedError

SERVICE = "/pirl.v1.PolicyService/"
SESSION = SERVICE + "Session"


class CallWatch(Protocol):
    """Looks at one call, or at one session with all its calls. Requests and replies may come from two threads."""

    def request(self, rpc: str, message: Any, id: int) -> None:
        """See a request before it is handled; `rpc` is its full name, `id` is 0 outside a session.

        Raises DeniedError to refuse it.
        """

    def reply(self, id: int, message: Any) -> None:
        """See the reply to the request of that id; within a session it may be a `pb.Refusal`."""

    def closed(self, code: grpc.StatusCode) -> None:
        """See how the call, or the session, ended. Called once."""


class Watcher(Protocol):
    """Makes a CallWatch for each call."""

    def opened(self, rpc: str, metadata: Mapping[str, str], peer: str) -> CallWatch:
        """See a call begin, before its first request is read. Raises DeniedError to refuse it."""


class Watched:
    """All watchers around one call, in order; the first that refuses ends it and those before it see the end."""

    def __init__(self, watchers: Sequence[Watcher], rpc: str) -> None:
        self._watchers, self._rpc = watchers, rpc
        self._watches: list[CallWatch] = []

    def open(self, metadata: Any, peer: str) -> None:
        """Begin. `metadata` is gRPC's sequence of pairs. Raises DeniedError."""
        words = {key: value for key, value in metadata or () if isinstance(value, str)}
        for watcher in self._watchers:
            self._watches.append(watcher.opened(self._rpc, words, peer))

    def request(self, message: Any) -> Any:
        """Show a request and return it. Raises DeniedError."""
        rpc, id_, inner = self._rpc, 0, message
        if isinstance(message, pb.SessionRequest):
            if (call := message.WhichOneof("call")) is None:
                return message  # the service answers it in words
            rpc, id_, inner = _RPC_OF[call], message.id, getattr(message, call)
        for watch in self._watches:
            watch.request(rpc, inner, id_)
        return message

    def reply(self, message: Any) -> Any:
        """Show a reply and return it; events, which answer nothing, are passed by."""
        id_, inner = 0, message
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


# get_info -> /pirl.v1.PolicyService/GetInfo: the fields of the session are named after the calls
_RPC_OF = {
    field.name: SERVICE + "".join(word.capitalize() for word in field.name.split("_"))
    for field in pb.SessionRequest.DESCRIPTOR.oneofs_by_name["call"].fields
}


STATUS = {
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "too-many-requests": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
RETRY_AFTER = "retry-after-ms"
"""trailing metadata of a refusal that time will lift"""


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # gRPC has no types
    """Shows every call, streamed or not, to the watchers; a DeniedError of theirs becomes the call's status.

    Within a session it becomes the answer to that message, and the session goes on unless its token is no longer valid.
    """

    def __init__(self, watchers: Sequence[Watcher], public: Collection[str]) -> None:
        """Calls named in `public` need no token and are shown to nobody: health."""
        self._watchers, self._public = tuple(watchers), frozenset(public)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Wrap the handler that would answer; an unknown method stays UNIMPLEMENTED, health is left alone."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method in self._public:
            return handler
        wrap, make, behave = _shape(handler)
        watched = wrap(behave, lambda: Watched(self._watchers, handler_call_details.method))
        return make(watched, handler.request_deserializer, handler.response_serializer)


def _shape(handler: Any) -> tuple[Any, Any, Any]:
    if handler.request_streaming and handler.response_streaming:
        return _stream_stream, grpc.stream_stream_rpc_method_handler, handler.stream_stream
    if handler.response_streaming:
        return _unary_stream, grpc.unary_stream_rpc_method_handler, handler.unary_stream
    assert not handler.request_streaming, "no service of ours only streams requests"
    return _unary_unary, grpc.unary_unary_rpc_method_handler, handler.unary_unary


def _unary_unary(behave: Any, watch: Callable[[], Watched]) -> Any:
    def watched(request: Any, context: Any) -> Any:
        with _status(watch(), context) as call:
            return call.reply(behave(call.request(request), context))

    return watched


def _unary_stream(behave: Any, watch: Callable[[], Watched]) -> Any:
    def watched(request: Any, context: Any) -> Iterator[Any]:
        with _status(watch(), context) as call:
            for reply in behave(call.request(request), context):
                yield call.reply(reply)

    return watched


def _stream_stream(behave: Any, watch: Callable[[], Watched]) -> Any:
    def watched(requests: Any, context: Any) -> Iterator[Any]:
        with _status(watch(), context) as call:
            for reply in behave(_shown(requests, call, context), context):
                yield call.reply(reply)

    return watched


def _shown(requests: Iterable[Any], call: Watched, context: Any) -> Iterator[Any]:
    for request in requests:
        try:
            shown = call.request(request)
        except DeniedError as denied:
            if denied.kind == "unauthenticated" or not isinstance(request, pb.SessionRequest):
                _abort(context, denied)
            code, wait_ms = STATUS[denied.kind].value[0], retry_after_ms(denied)
            refusal = pb.Refusal(code=code, message=str(denied), retry_after_ms=wait_ms)
            shown = pb.SessionReply(id=request.id, error=refusal)  # a session passes on what is answered already
        yield shown


@contextmanager
def _status(call: Watched, context: Any) -> Iterator[Watched]:
    try:
        call.open(context.invocation_metadata(), context.peer())
        yield call
    except DeniedError as denied:
        call.close(STATUS[denied.kind])
        _abort(context, denied)
    except GeneratorExit:  # the client is gone, or the server stops
        call.close(grpc.StatusCode.CANCELLED)
        raise
    except BaseException:
        call.close(context.code() or grpc.StatusCode.UNKNOWN)
        raise
    else:
        call.close(context.code() or grpc.StatusCode.OK)


def _abort(context: Any, denied: DeniedError) -> None:
    if denied.retry_after_s:
        context.set_trailing_metadata(((RETRY_AFTER, str(retry_after_ms(denied))),))
    context.abort(STATUS[denied.kind], str(denied))


def retry_after_ms(denied: DeniedError) -> int:
    """Return the wait in whole milliseconds, never too short."""
    return -int(-1000 * denied.retry_after_s // 1)
