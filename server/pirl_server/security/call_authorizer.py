"""Authorises gRPC calls and writes their effects to the audit log."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf.message import Message

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.grpc_options import SERVICE_PATH, SESSION_PATH
from pirl_server.registry.audit import AuditLog
from pirl_server.security.access_control import AccessControl, Caller
from pirl_server.security.permissions import RPCS

_INFO = SERVICE_PATH + "GetInfo"


class CallAuthorizer:
    """Checks token, scope and robot of each call; within a session of each message, so that revoking ends it."""

    def __init__(self, gate: AccessControl, audit: AuditLog) -> None:
        self._gate, self._audit = gate, audit

    def opened(self, rpc: str, metadata: Mapping[str, str], peer: str) -> _GateWatch:
        """Let the call in. Raises DeniedError."""
        authorization = metadata.get("authorization", "")
        caller = self._gate.enter(rpc, RPCS.get(rpc), authorization, peer)
        return _GateWatch(self._gate, self._audit, rpc, authorization, peer, caller)


class _GateWatch:
    def __init__(
        self, gate: AccessControl, audit: AuditLog, rpc: str, authorization: str, peer: str, caller: Caller
    ) -> None:
        self._gate, self._audit, self._rpc = gate, audit, rpc
        self._authorization, self._peer, self._caller = authorization, peer, caller
        self._labels: dict[int, pb.LabelEpisodeRequest] = {}

    def request(self, rpc: str, message: Message, id: int) -> None:
        if self._rpc == SESSION_PATH:
            self._caller = self._gate.enter(rpc, RPCS.get(rpc), self._authorization, self._peer)
        if rpc.startswith(SERVICE_PATH) and rpc != SESSION_PATH:
            robot = getattr(message, "robot_id", None)
            if robot or rpc != _INFO:  # that one may be asked for no robot
                self._gate.check_robot(self._caller, rpc, robot, getattr(message, "episode_id", ""))
        if isinstance(message, pb.LabelEpisodeRequest):
            self._labels[id] = message

    def reply(self, id: int, message: Message) -> None:
        asked = self._labels.pop(id, None)
        if asked is None or not isinstance(message, pb.LabelEpisodeReply):
            return
        self._audit.note(
            "label changed",
            self._caller.name,
            episode=asked.episode_id,
            label=pb.Outcome.Name(asked.outcome),
            previous=pb.Outcome.Name(message.previous),
            reason=asked.note,
        )

    def closed(self, code: grpc.StatusCode) -> None:
        self._labels.clear()
