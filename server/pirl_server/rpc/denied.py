"""Denial of a call: raised by checks, turned into a gRPC status by the interceptor."""

from __future__ import annotations

from typing import Literal

Kind = Literal["unauthenticated", "forbidden", "too-many-requests"]


class DeniedError(PermissionError):
    """The call is denied. Its text is for the caller and reveals nothing about tokens, names or what exists."""

    def __init__(self, kind: Kind, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.kind, self.retry_after_s = kind, retry_after_s
