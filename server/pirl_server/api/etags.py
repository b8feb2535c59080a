"""Entity tags: how a client says which state it has seen (RFC 9110, section 8.8.3)."""

from __future__ import annotations


def tag(header: str | None) -> str | None:
    """Return the tag of an `If-Match` header; None where there is none, or any state will do."""
    return None if header is None or header.strip() == "*" else header.strip().removeprefix("W/").strip('"')


def quoted(state: str) -> str:
    """Return a tag as it stands in an `ETag` header."""
    return f'"{state}"'


def matches(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names this quoted tag."""
    return header is not None and (header.strip() == "*" or etag in header)
