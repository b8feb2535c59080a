"""Bearer tokens: name, scopes, robots and expiry.

A token is `pirl_<id>_<secret>`; the id is public and finds the entry, the secret has 256 random bits. The file keeps
sha256 of the whole. A slow, salted hash protects secrets that people choose; one of 2^256 cannot be guessed, so a fast
one gives nothing away here and costs a microsecond per call (OWASP, Password Storage and Cryptographic Storage).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import check_name, locked, sync, utc_now
from pirl_server.security.permissions import SCOPES

_ID_HEX, _SECRET_BYTES = 12, 32


@dataclass(frozen=True)
class Token:
    """One entry of the token file; the token itself is not in it."""

    id: str
    name: str
    """whose it is, for the audit log"""
    scopes: tuple[str, ...]
    robots: tuple[str, ...]
    """the only robots it may speak for; empty: any"""
    created: str
    expires: str | None
    """ISO 8601 with its zone; None: never"""
    sha256: str

    def expired(self, now: datetime) -> bool:
        """Say whether it ran out; `now` has a zone."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= now


class TokenFile:
    """The tokens on disk, read again when the file changes. Any thread may call any method.

    A file that was readable once and is gone, malformed or open to others rejects all callers until it is repaired: to
    trust what was read before would keep a revoked token alive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        self._fault = ""

    def list(self) -> list[Token]:
        """Return every entry, expired ones included. Raises ValueError for a file that cannot be trusted."""
        return list(_read(self.path).values()) if self.path.exists() else []

    def find(self, text: str) -> Token | None:
        """Return the entry of a token; None when it is unknown, revoked or expired.

        Raises ValueError when the file cannot be trusted now.
        """
        tokens = self._current()
        token = tokens.get(text.removeprefix("pirl_").partition("_")[0])
        digest = hashlib.sha256(text.encode()).hexdigest()
        # compared even when there is no entry: the answer takes as long either way
        same = hmac.compare_digest(digest, token.sha256 if token else "0" * 64)
        return token if token and same and not token.expired(datetime.now(timezone.utc)) else None

    def create(
        self, name: str, scopes: Iterable[str], robots: Iterable[str] = (), expires: datetime | None = None
    ) -> str:
        """Add a token and return it, for the only time. Raises ValueError for an unknown scope or a taken name."""
        check_name("token", name)
        if wrong := set(scopes) - set(SCOPES):
            raise ValueError(f"scope '{min(wrong)}' is not known: use {', '.join(SCOPES)}")
        id_, robots = secrets.token_hex(_ID_HEX // 2), [check_name("robot", robot) for robot in robots]
        text = f"pirl_{id_}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        until = expires.astimezone(timezone.utc).isoformat(timespec="seconds") if expires else None
        token = Token(id_, name, tuple(sorted(set(scopes))), tuple(robots), utc_now(), until, digest)
        with locked(self._lock_path()):
            present = self.list()
            if name in {each.name for each in present}:
                raise ValueError(f"there is a token named '{name}' already: revoke it first, or choose another name")
            _write(self.path, [*present, token])
        return text

    def revoke(self, name: str) -> Token:
        """Remove the token of this name. Raises ValueError when there is none."""
        with locked(self._lock_path()):
            present = self.list()
            gone = [token for token in present if token.name == name]
            if not gone:
                raise ValueError(f"no token is named '{name}': list them with `pirl token list`")
            _write(self.path, [token for token in present if token.name != name])
        return gone[0]

    def _lock_path(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.with_name(f".{self.path.name}.lock")

    def _current(self) -> dict[str, Token]:
        try:
            stat = self.path.stat()
            seen = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)  # ctime moves with the mode, too
        except OSError:
            seen = (0, 0, 0)
        with self._lock:
            if seen != self._seen:
                self._seen, self._tokens, self._fault = seen, {}, ""
                try:
                    self._tokens = _read(self.path)
                except ValueError as error:
                    self._fault = str(error)
            if self._fault:
                raise ValueError(self._fault)
            return self._tokens


def _read(path: Path) -> dict[str, Token]:
    """Read the file. Raises ValueError when others may read it too, or when it is not what `_write` writes."""
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text()
    except OSError as error:
        raise ValueError(f"token file {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise ValueError(f"token file {path} is readable by other users (mode {mode:03o}): chmod 600 {path}")
    try:
        tokens = [_token(entry) for entry in json.loads(text)["tokens"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"token file {path} is malformed ({error}): create it with `pirl token create`") from None
    return {token.id: token for token in tokens}


def _token(entry: dict[str, Any]) -> Token:
    token = Token(**entry | {"scopes": tuple(entry["scopes"]), "robots": tuple(entry["robots"])})
    if not set(token.scopes) <= set(SCOPES):
        raise ValueError(f"scopes {token.scopes} of '{token.name}'")
    if token.expires is not None and datetime.fromisoformat(token.expires).tzinfo is None:
        raise ValueError(f"expires '{token.expires}' of '{token.name}' has no time zone")
    return token


def _write(path: Path, tokens: list[Token]) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    # born with its mode: there is no instant at which others could open it
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"tokens": [asdict(token) for token in tokens]}, file, indent=1, sort_keys=True)
    sync(staged)
    os.replace(staged, path)
