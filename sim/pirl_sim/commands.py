"""`pirl sim`: what simulators there are, and the installation of those that need an environment of their own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pirl_sim.environments import ENVIRONMENTS, folder, install, python_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pirl sim`; returns 0, or 1 when an environment can't be made. Raises ValueError for an unknown name."""
    parser = argparse.ArgumentParser(
        prog="pirl sim", description="environments of simulators that need one of their own"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="{ls,install}")
    actions.add_parser("ls", help="print them, and where they are or would be")
    wanted = actions.add_parser("install", help="make one, or leave it as it is")
    wanted.add_argument("name", help=", ".join(f"{name}: {each.says}" for name, each in ENVIRONMENTS.items()))
    options = parser.parse_args(arguments)
    if options.action == "ls":
        for name, each in ENVIRONMENTS.items():
            where = folder(name) if python_of(name) else f"not installed: pirl sim install {name}"
            print(f"{name}\t{each.says}\t{where}")
        return 0
    try:
        python = install(options.name)
    except RuntimeError as error:
        print(f"pirl sim: {error}", file=sys.stderr)
        return 1
    print(f"{options.name} is in {python.parents[1]}")
    return 0
