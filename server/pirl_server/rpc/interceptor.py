"""What may look at every call on its way in and out: the gate, the metrics, the spans, the log.

A session is one call that carries many; watchers see each of them as if it had come alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grpc

from pirl_contract.v1 import policy_pb2 as pb

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
