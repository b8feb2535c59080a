"""The thin side that gRPC sees: puts the watchers around each call of a threaded server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.rpc.interceptor import Watched, Watcher
from pirl_server.security.access_control import DeniedError
from pirl_server.security.permissions import PUBLIC, RPCS

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

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Wrap the handler that would answer; an unknown method stays UNIMPLEMENTED, health is left alone."""
        handler = continuation(handler_call_details)
        if handler is None or RPCS.get(handler_call_details.method) == PUBLIC:
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
