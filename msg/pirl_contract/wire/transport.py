"""The two ways a call can be carried, for a client with threads: one by one, or on one stream.

A call is known by its name in `SessionRequest`. Every carrier raises RefusedError and nothing else when there is no
reply, and never sends a request twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import serialization
from pirl_contract.wire.errors import of_error
from pirl_contract.wire.serialization import Picture

SERVICE = "/pirl.v1.PolicyService/"
SESSION = SERVICE + "Session"
NO_PICTURES: Mapping[str, Picture] = {}
UNARY: Mapping[str, tuple[str, Any]] = {
    "get_info": ("GetInfo", pb.GetInfoReply),
    "infer": ("Infer", pb.InferReply),
    "start_episode": ("StartEpisode", pb.StartEpisodeReply),
    "end_episode": ("EndEpisode", pb.EndEpisodeReply),
    "report_outcomes": ("ReportOutcomes", pb.ReportOutcomesReply),
    "label_episode": ("LabelEpisode", pb.LabelEpisodeReply),
}


class Carrier(Protocol):
    """Carries one call at a time."""

    def call(self, name: str, request: Any, timeout_s: float, pictures: Mapping[str, Picture] = NO_PICTURES) -> Any:
        """Return the reply. Raises RefusedError."""

    def close(self) -> None:
        """Abandon what is under way. Calling it twice changes nothing."""


class UnaryCarrier:
    """Each call on its own. The channel belongs to the client."""

    def __init__(self, channel: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self._metadata = tuple(metadata)
        self._methods = {
            name: channel.unary_unary(SERVICE + method, request_serializer=None, response_deserializer=reply.FromString)
            for name, (method, reply) in UNARY.items()
        }

    def call(self, name: str, request: Any, timeout_s: float, pictures: Mapping[str, Picture] = NO_PICTURES) -> Any:
        """Return the reply. Raises RefusedError."""
        data = unary_bytes(request, pictures)
        try:
            return self._methods[name](data, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise of_error(error) from None

    def close(self) -> None:
        """Nothing is kept between calls."""


def unary_bytes(request: Any, pictures: Mapping[str, Picture]) -> bytes:
    """Serialise a unary request."""
    return serialization.infer_bytes(request, pictures) if pictures else request.SerializeToString()


def session_bytes(id: int, name: str, request: Any, timeout_s: float, pictures: Mapping[str, Picture]) -> bytes:
    """Serialise a request within a session."""
    wrapped = pb.SessionRequest(id=id, timeout_ms=max(1, round(1000 * timeout_s)), **{name: request})
    return serialization.session_bytes(wrapped, pictures)
