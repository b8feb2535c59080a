"""`pirl dataset create | ls | show | verify`: lists of episodes that stay as they are, for jobs to learn from."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice

from pirl_server.config.command_line import add_flags, read_flags
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.commands import by, parser_of, private, store_of
from pirl_server.episodes.datasets import Dataset
from pirl_server.episodes.store import EpisodeStore


@private
def create(arguments: Sequence[str]) -> int:
    """Freeze the episodes of a selection, with the labels that they have now, under a name."""
    parser = parser_of("dataset create", create.__doc__)
    parser.add_argument("name")
    add_flags(parser.add_argument_group("which episodes"), EpisodeSelection)
    options = parser.parse_args(arguments)
    store, chosen = store_of(options.root), read_flags(EpisodeSelection, options)
    print(_line(store.datasets.create(options.name, list(islice(store.select(chosen), chosen.limit)), chosen, by())))
    return 0


def ls(arguments: Sequence[str]) -> int:
    """List the datasets."""
    datasets = store_of(parser_of("dataset ls", ls.__doc__).parse_args(arguments).root).datasets
    damaged = 0
    for name in datasets.names():
        try:
            print(_line(datasets.get(name)))
        except ValueError as error:
            damaged += 1
            print(error, file=sys.stderr)
    return 1 if damaged else 0


def show(arguments: Sequence[str]) -> int:
    """Show a dataset and its episodes as JSON."""
    parser = parser_of("dataset show", show.__doc__)
    parser.add_argument("name")
    options = parser.parse_args(arguments)
    found = _get(store_of(options.root), options.name)
    print(json.dumps(asdict(found) | {"sha256": found.sha256}, indent=1))
    return 0


def verify(arguments: Sequence[str]) -> int:
    """Read every episode of a dataset and compare it with what was frozen; status 1 when one is missing or changed."""
    parser = parser_of("dataset verify", verify.__doc__)
    parser.add_argument("name")
    options = parser.parse_args(arguments)
    store = store_of(options.root)
    found, faults = _get(store, options.name), list[str]()
    for each in found.episodes:
        try:
            store.open_frozen(each)
        except ValueError as error:
            faults.append(str(error))
    for why in faults:
        print(why, file=sys.stderr)
    print(f"{len(found.episodes) - len(faults)} of {len(found.episodes)} episodes as frozen, sha256 {found.sha256}")
    return 1 if faults else 0


def _get(store: EpisodeStore, name: str) -> Dataset:
    try:
        return store.datasets.get(name)
    except KeyError:
        raise ValueError(f"no dataset '{name}': there are {', '.join(store.datasets.names()) or 'none'}") from None


def _line(found: Dataset) -> str:
    names = {True: "successes", False: "failures", None: "unlabelled"}
    outcomes = Counter(names[each.success] for each in found.episodes)
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    count, digest = len(found.episodes), found.sha256[:16]
    return f"{found.name}  {found.created}  {count} episodes ({said})  {digest}  {found.author}"
