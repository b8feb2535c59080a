"""`pirl episodes VERB`, `pirl dataset VERB`: finds the function behind the verb; only its module is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import import_module

EPISODES = {
    "migrate": "pirl_server.episodes.migration:migrate",
    "draw": "pirl_server.inspection.commands:draw",
    "replay": "pirl_server.inspection.commands:replay",
    "statistics": "pirl_server.episodes.statistics:statistics",
    "export": "pirl_server.interchange.episodes.commands:export_command",
    "import": "pirl_server.interchange.episodes.commands:import_command",
    "verify": "pirl_server.episodes.commands:verify",
    "ls": "pirl_server.episodes.commands:ls",
    "show": "pirl_server.episodes.commands:show",
    "label": "pirl_server.episodes.commands:label",
    "undo": "pirl_server.episodes.commands:undo",
    "prune": "pirl_server.episodes.commands:prune",
    "propose": "pirl_server.training.success.commands:propose",
    "accept": "pirl_server.episodes.commands:accept",
    "reject": "pirl_server.episodes.commands:reject",
    "reopen": "pirl_server.episodes.commands:reopen",
}
"""verb -> module:function, which takes the arguments after the verb and returns the exit status"""
DATASETS = {
    "create": "pirl_server.episodes.dataset_commands:create",
    "ls": "pirl_server.episodes.dataset_commands:ls",
    "show": "pirl_server.episodes.dataset_commands:show",
    "verify": "pirl_server.episodes.dataset_commands:verify",
}


def episodes(arguments: Sequence[str]) -> int:
    """Look at a server's episodes, check them, take them in and out."""
    return _run("episodes", episodes.__doc__, EPISODES, arguments)


def dataset(arguments: Sequence[str]) -> int:
    """Freeze lists of episodes under a name, for jobs that can be repeated."""
    return _run("dataset", dataset.__doc__, DATASETS, arguments)


def _run(family: str, description: str | None, verbs: Mapping[str, str], arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"pirl {family}", description=description, epilog="each verb has its own --help"
    )
    parser.add_argument("verb", choices=sorted(verbs))
    verb, rest = parser.parse_args(arguments[:1]).verb, arguments[1:]
    module, _, name = verbs[verb].partition(":")
    return int(getattr(import_module(module), name)(rest))
