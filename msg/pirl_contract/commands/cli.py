"""`pirl NAME [ARGUMENT ...]`: finds the command NAME among the installed packages and runs it.

Commands are entry points of the group "pirl.commands", so that a robot with the base package has what works there
and nothing is imported before it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

GROUP = "pirl.commands"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status, 2 for a name that is not known."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not words or words[0] in ("-h", "--help"):
        print("usage: pirl COMMAND [ARGUMENT ...]\ncommands: " + ", ".join(sorted(commands)))
        return 0
    name, rest = words[0], words[1:]
    if name not in commands:
        print(f"pirl: no command '{name}'; there are: {', '.join(sorted(commands))}", file=sys.stderr)
        return 2
    try:
        return int(commands[name].load()(rest) or 0)
    except ModuleNotFoundError as error:
        print(
            f"pirl {name}: needs '{error.name}', which is not installed: pip install 'pirl[server,sim]'",
            file=sys.stderr,
        )
        return 2
    except ValueError as error:
        print(f"pirl {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
