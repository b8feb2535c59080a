"""Flags of the commands that ask a server, their tables, and what they return."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pirl_server.remote.rest_client import DEFAULT_URL, TOKEN_VARIABLE, URL_VARIABLE, RestClient, RestError

REJECTED, UNREACHABLE = 1, 3
"""exit status: the server said no, or the job did not succeed; no server answers. 2 is a mistake in the command"""
Act = Callable[[RestClient, argparse.Namespace], int]


def add_verb(verbs: Any, name: str, act: Act) -> argparse.ArgumentParser:
    """Add a verb to a command: its help is the first line of the function that does it."""
    said = (act.__doc__ or "").splitlines()[0]
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=said, description=said)
    parser.set_defaults(act=act)
    parser.add_argument("--api", default="", metavar="URL", help=f"of the server's REST port (default: {DEFAULT_URL})")
    parser.add_argument("--token-file", type=Path, help="file with the access token")
    parser.add_argument("--ca", type=Path, help="PEM file of the CA of the server's certificate")
    parser.add_argument("--json", action="store_true", help="print what the server answers")
    return parser


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """Make the parser of a command with verbs."""
    return argparse.ArgumentParser(
        prog=f"pirl {name}",
        description=description,
        epilog=f"{URL_VARIABLE} and {TOKEN_VARIABLE} in the environment are the address and the token where no flag is."
        " Exit status: 0 done, 1 rejected or not succeeded, 2 wrong command, 3 no server.",
    )


def run(name: str, parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit status."""
    options = parser.parse_args(arguments)
    try:
        with RestClient(options.api, options.token_file, options.ca) as server:
            status: int = options.act(server, options)
            return status
    except RestError as error:
        print(f"pirl {name}: {error}", file=sys.stderr)
        return REJECTED if error.status else UNREACHABLE


def show(value: Any) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print columns as wide as their widest cell."""
    cells = [list(head), *([" ".join(str("" if cell is None else cell).split()) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
