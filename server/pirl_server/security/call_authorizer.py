"""Authorises gRPC calls and writes their effects to the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.registry.audit import AuditLog
from pirl_server.rpc.interceptor import SERVICE, SESSION
from pirl_server.security.access_control import AccessControl, Caller
from pirl_server.security.permissions import RPCS

_LABEL, _INFER, _INFO = SERVICE + "LabelEpisode", SERVICE + "Infer", SERVICE + "GetInfo"


class CallAuthorizer:
    """Checks token, scope, robot and rate of each call; within a session of each message, so that revoking ends it."""

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
        self._labels: dict[int, Any] = {}

    def request(self, rpc: str, message: Any, id: int) -> None:
        if self._rpc == SESSION:
            self._caller = self._gate.enter(rpc, RPCS.get(rpc), self._authorization, self._peer)
        if rpc.startswith(SERVICE) and rpc != SESSION:
            robot = getattr(message, "robot_id", None)
            if robot or rpc != _INFO:  # that one may be asked for no robot
                self._gate.check_robot(self._caller, rpc, robot, getattr(message, "episode_id", ""))
        if rpc == _INFER:
            self._gate.check_rate(message.robot_id)
        if rpc == _LABEL:
            self._labels[id] = message

    def reply(self, id: int, message: Any) -> None:
        if (asked := self._labels.pop(id, None)) is None or isinstance(message, pb.Refusal):
            return
        self._audit.write(
            "label changed",
            self._caller.name,
            episode=asked.episode_id,
            label=pb.Outcome.Name(asked.outcome),
            previous=pb.Outcome.Name(message.previous),
            reason=asked.note,
        )

    def closed(self, code: grpc.StatusCode) -> None:
        self._labels.clear()
