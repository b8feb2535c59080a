"""Errors of rejected or lost calls on the robot: ConnectionError, TimeoutError or ValueError, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.addresses import proxy_note
from pirl_contract.wire.grpc_options import RETRY_AFTER, STATUS_BY_NUMBER

_GIVEN_UP = (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)


class RefusedError(Exception):
    """A call without a reply, as the wire says it. Clients never let it out."""

    def __init__(self, code: grpc.StatusCode, text: str, retry_after_ms: int = 0) -> None:
        super().__init__(text)
        self.code, self.text, self.retry_after_s = code, text, retry_after_ms / 1000


def of_error(error: Any) -> RefusedError:
    """Read a grpc.RpcError that ended a call."""
    hints = dict(error.trailing_metadata() or ())
    hint = hints.get(RETRY_AFTER, "")
    return RefusedError(error.code(), error.details() or "", int(hint) if hint.isdecimal() else 0)


def of_refusal(refusal: pb.Refusal) -> RefusedError:
    """Read a rejection within a session."""
    code = STATUS_BY_NUMBER.get(refusal.code, grpc.StatusCode.UNKNOWN)
    return RefusedError(code, refusal.message, refusal.retry_after_ms)


@dataclass(frozen=True)
class Failures:
    """Puts the server's address into the words."""

    address: str

    def raised(self, refused: RefusedError, timeout_s: float) -> Exception:
        """Return what a caller is to see."""
        server, code = f"policy server {self.address}", refused.code
        if code is grpc.StatusCode.UNAVAILABLE:
            return ConnectionError(f"{server} is not reachable: {refused.text}{proxy_note()}")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimeoutError(f"{server} did not reply within {timeout_s} s")
        if code in _GIVEN_UP:
            return TimeoutError(f"{server} aborted this request: {refused.text}")
        return ValueError(f"policy server rejected the call ({code.name.lower()}): {refused.text}")
