"""Exceptions to gRPC status codes. Clients get one line of text; tracebacks stay in the server's log."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.grpc_options import RETRY_AFTER, STATUS_BY_NUMBER
from pirl_server.rpc.denied import DeniedError
from pirl_server.rpc.interceptor import STATUS
from pirl_server.serving.errors import BusyError, ExpiredError, NoPolicyError, StoppedError, SupersededError

_LOG = logging.getLogger(__name__)
Handler = TypeVar("Handler", bound=Callable[..., Any])


class ContractMismatchError(ValueError):
    """Robot and policy do not have the same contract."""


class NotWrittenError(Exception):
    """The disk rejects what was to be kept; the text has no path."""


class NotFoundError(KeyError):
    """The id or alias names nothing; the text says what was looked for."""


_STATUS: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (ContractMismatchError, grpc.StatusCode.FAILED_PRECONDITION),
    (StoppedError, grpc.StatusCode.FAILED_PRECONDITION),
    (ValueError, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ExpiredError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (SupersededError, grpc.StatusCode.CANCELLED),
    (NoPolicyError, grpc.StatusCode.UNAVAILABLE),
)


def answers_with_status(handler: Handler) -> Handler:
    """Wrap a servicer method `(self, request, context)`: what it raises becomes a status with its text."""

    @functools.wraps(handler)
    def wrapped(self: object, request: Message, context: grpc.ServicerContext) -> Message:
        try:
            reply: Message = handler(self, request, context)
            return reply
        except Exception as error:
            refused = refusal(error)
        if refused.retry_after_ms:
            context.set_trailing_metadata(((RETRY_AFTER, str(refused.retry_after_ms)),))
        context.abort(STATUS_BY_NUMBER[refused.code], refused.message)
        raise AssertionError("abort raises")

    return wrapped  # type: ignore[return-value]


def refusal(error: Exception) -> pb.Refusal:
    """Return the status code, one line of text and the retry delay for the client."""
    code, text = _translate(error)
    if code is grpc.StatusCode.INTERNAL:
        _LOG.error("a call failed", exc_info=error)
    retry_after_ms = math.ceil(1000 * error.retry_after_s) if isinstance(error, (BusyError, DeniedError)) else 0
    return pb.Refusal(code=code.value[0], message=text, retry_after_ms=retry_after_ms)


def _translate(error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, DeniedError):
        return STATUS[error.kind], str(error)
    for kind, code in _STATUS:
        if isinstance(error, kind):
            return code, str(error.args[0]) if error.args else kind.__name__
    if isinstance(error, NotWrittenError):
        return grpc.StatusCode.INTERNAL, str(error)
    return grpc.StatusCode.INTERNAL, "internal error: see the server's log"
