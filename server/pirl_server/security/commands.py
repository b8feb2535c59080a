"""`pirl token`: create, list and revoke access tokens."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pirl_server.paths import MODELS, TOKENS
from pirl_server.registry.audit import NAME as AUDIT
from pirl_server.registry.audit import AuditLog
from pirl_server.root_lock import private_files
from pirl_server.security.permissions import SCOPES
from pirl_server.security.tokens import TokenFile

_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def token(arguments: Sequence[str]) -> int:
    """Make, list and revoke the tokens of a server; a running one that asks for tokens notices."""
    options = _parser().parse_args(arguments)
    with private_files():
        _run(options)
    return 0


def _run(options: argparse.Namespace) -> None:
    file, audit = TokenFile(options.root / TOKENS), AuditLog(options.root / MODELS / AUDIT)
    by = f"{_user()} (pirl token)"
    if options.verb == "create":
        robots = [robot for robot in options.robots.split(",") if robot]
        made = file.create(options.name, options.scope, robots, _expiry(options.expires))
        audit.path.parent.mkdir(parents=True, exist_ok=True)
        audit.note("token created", by, token=options.name, scopes=",".join(options.scope), robots=options.robots)
        print(made)
        if len(file.list()) == 1:
            print("first token of this root: a running server requires tokens after a restart", file=sys.stderr)
    elif options.verb == "revoke":
        revoked = file.revoke(options.name)
        audit.note("token revoked", by, token=revoked.name)
        print(f"revoked {revoked.name}")
    else:
        for each in file.list():
            robots_, until = ",".join(each.robots) or "any robot", each.expires or "never"
            print(f"{each.name}  {','.join(each.scopes)}  {robots_}  created {each.created}  expires {until}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user id {os.getuid()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pirl token", description=token.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create", help="create a token and print it once: only its hash is stored")
    create.add_argument("--name", required=True, help="name of its owner, shown in the audit log")
    create.add_argument("--scope", required=True, action="append", choices=SCOPES, help="repeatable")
    create.add_argument("--robots", default="", metavar="ID,ID", help="restrict it to these robots; default: any")
    create.add_argument("--expires", default="", metavar="WHEN", help="90d, 12h, or a date such as 2030-01-31")
    verbs.add_parser("list", help="list names, scopes and expiry")
    verbs.add_parser("revoke", help="revoke a token").add_argument("name")
    for verb in verbs.choices.values():
        verb.add_argument("--root", type=Path, default=Path("runs/server"), help="the --root of the server")
    return parser


def _expiry(text: str) -> datetime | None:
    """Read a span from now, or a date in UTC. Raises ValueError for another form and for a time that is past."""
    if not text:
        return None
    now = datetime.now(timezone.utc)
    if span := re.fullmatch(r"(\d{1,5})([dhm])", text):
        return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--expires {text} is neither a span such as 90d nor a date such as 2030-01-31") from None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    if when <= now:
        raise ValueError(f"--expires {text} is past")
    return when
