"""Authorises a call by caller, scope, robot and rate: `AccessControl` on any wire, `CallAuthorizer` for gRPC."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from pirl_contract.names import is_name
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.grpc_options import SERVICE_PATH, SESSION_PATH
from pirl_server.registry.audit import AuditLog
from pirl_server.rpc.denied import DeniedError
from pirl_server.security.permissions import PUBLIC, RPCS, SCOPES
from pirl_server.security.rate_limiter import Limiter
from pirl_server.security.tokens import TokenFile

_LOG = logging.getLogger(__name__)
_INFER, _INFO = SERVICE_PATH + "Infer", SERVICE_PATH + "GetInfo"
SCHEMES = ("bearer", "api-key")
"""of the Authorization header; openpi's clients send the second"""


@dataclass(frozen=True)
class Caller:
    """Who calls."""

    name: str
    """for the audit log: the token's name and where the call came from"""
    peer: str
    scopes: frozenset[str]
    robots: frozenset[str]
    """the only robots it speaks for; empty: any"""
    token: str = ""
    """name of the token; empty where none was asked for"""


class AccessControl:
    """Without a token file every caller is admin: only for a loopback address, `check_bind` sees to it.

    `robot_of(episode_id)` names the robot of an episode, None when there is none: calls that carry only an episode
    are checked against that robot.
    """

    def __init__(
        self,
        tokens: TokenFile | None,
        audit: AuditLog,
        limiter: Limiter | None = None,
        robot_of: Callable[[str], str | None] = lambda episode_id: None,
    ) -> None:
        self.open = tokens is None
        """no token is required"""
        self.audit = audit
        self.rejected: Counter[str] = Counter()
        """calls by what was wrong: token, scope, robot"""
        self._tokens, self._limiter, self._robot_of = tokens, limiter, robot_of
        # callers without a token must not be able to fill the disk with rejections
        self._audited = Limiter(interval_ns=10_000_000_000, burst=10)

    def enter(self, call: str, allowed: frozenset[str] | None, authorization: str, peer: str) -> Caller:
        """Return who calls; `allowed` is the call's row of the tables, None when it has none.

        Raises DeniedError: no valid token, or none of the allowed scopes.
        """
        if allowed == PUBLIC:
            return Caller(peer, peer, frozenset(), frozenset())
        caller = self._caller(call, authorization, peer)
        self.check_scope(caller, call, allowed)
        return caller

    def check_scope(self, caller: Caller, call: str, allowed: frozenset[str] | None) -> None:
        """Raise DeniedError when none of the caller's scopes is among the allowed ones, or nothing is allowed."""
        if allowed is None or not caller.scopes & allowed:
            self._refused(call, caller, "scope")
            raise DeniedError("forbidden", "the token's scope does not allow this call")

    def check_robot(self, caller: Caller, call: str, robot_id: str | None, episode_id: str = "") -> None:
        """Raise DeniedError when the caller may not speak for the robot, or, where it is None, for the episode's."""
        if not caller.robots:
            return
        named = self._robot_of(episode_id) if robot_id is None else robot_id
        if named is not None and named not in caller.robots:
            self._refused(call, caller, "robot")
            raise DeniedError("forbidden", "the token is for another robot")

    def robot(self, authorization: str | None, peer: str) -> str:
        """Return whose robot it is that shows this header, on a wire where robots have no ids; raises DeniedError.

        That is the one robot of its token; the token's own name where it speaks for several, or for any.
        """
        caller = self.enter(_INFER, RPCS[_INFER], authorization or "", peer)
        return next(iter(caller.robots)) if len(caller.robots) == 1 else caller.token

    def check_rate(self, name: str) -> None:
        """Count one call of this robot. Raises DeniedError when it asks too often.

        An id that breaks the rule is not remembered: the service rejects it with a reason.
        """
        if self._limiter is not None and is_name(name) and (wait_ns := self._limiter.take(name)):
            raise DeniedError("too-many-requests", "rate limit exceeded", wait_ns / 1e9)

    def _caller(self, call: str, authorization: str, peer: str) -> Caller:
        if self._tokens is None:
            return Caller(peer, peer, frozenset(SCOPES), frozenset())
        scheme, _, text = authorization.partition(" ")
        try:
            token = self._tokens.find(text.strip()) if scheme.lower() in SCHEMES else None
        except ValueError as error:
            _LOG.error("all calls are rejected: %s", error)
            token = None
        if token is None:
            self._refused(call, Caller("unknown", peer, frozenset(), frozenset()), "token")
            raise DeniedError("unauthenticated", "no valid token: send one as 'authorization: Bearer TOKEN'")
        return Caller(f"{token.name} ({peer})", peer, frozenset(token.scopes), frozenset(token.robots), token.name)

    def _refused(self, call: str, caller: Caller, reason: str) -> None:
        self.rejected[reason] += 1
        if not self._audited.take(_host(caller.peer)):
            self.audit.note("call refused", caller.name, "refused", call=call, peer=caller.peer, reason=reason)


def _host(peer: str) -> str:
    """gRPC's ipv4:10.0.0.7:51324 without the port, which a caller can change with every call."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


class CallAuthorizer:
    """Checks token, scope and robot of each call, within a session of each message, so that revoking ends it.

    Writes the labels that calls change to the audit log.
    """

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
