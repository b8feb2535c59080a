"""`pirl episodes ls | show | verify | label | undo | accept | reject | reopen | prune`: a store by hand, also while its
server runs.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import wraps
from itertools import islice
from pathlib import Path

from pirl_server.config.command_line import add_flags, read_flags
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.index_rows import EpisodeEntry
from pirl_server.episodes.proposal_decisions import Decision, decide
from pirl_server.episodes.proposals import Proposal
from pirl_server.episodes.retention import Retention, plan, remove
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES
from pirl_server.root_lock import private_files

OUTCOMES = {"success": True, "failure": False, "unlabelled": None}
SOURCES = ("operator", "sim", "classifier")
GIB = 2**30


def by() -> str:
    """Return who runs the command, for the log of labels and for datasets."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):  # a container's user without a name
        return f"user id {os.getuid()} (command line)"


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser of a verb, with the root that every one of them takes."""
    parser = argparse.ArgumentParser(prog=f"pirl {name}", description=(description or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs/server"), help="folder of the server (%(default)s)")
    return parser


def store_of(root: Path) -> EpisodeStore:
    """Open the store below a server's root. Raises ValueError where there is none."""
    if not (root / EPISODES).is_dir():
        raise ValueError(f"'{root}' keeps no episodes: give the --root of a server")
    return EpisodeStore(root / EPISODES)


def private(run: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """Make what a command writes closed to other users, as a server does."""

    @wraps(run)
    def wrapped(arguments: Sequence[str]) -> int:
        with private_files():
            return run(arguments)

    return wrapped


@contextmanager
def known(episode_id: str) -> Iterator[None]:
    """Raise ValueError for a KeyError, with the id."""
    try:
        yield
    except KeyError:
        raise ValueError(f"no episode '{episode_id}': pirl episodes ls lists them") from None


@private
def ls(arguments: Sequence[str]) -> int:
    """List episodes, newest first."""
    parser = parser_of("episodes ls", ls.__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_flags(parser.add_argument_group("which"), EpisodeSelection)
    options = parser.parse_args(arguments)
    store, chosen = store_of(options.root), read_flags(EpisodeSelection, options)
    count = size = 0
    for each in islice(store.select(chosen), chosen.limit):
        proposal = store.proposals.get(each.summary.id)
        if options.json:
            print(json.dumps(_shown(each) | {"proposal": None if proposal is None else asdict(proposal)}))
        else:
            print(_line(each) if proposal is None else f"{_line(each)}  {_proposed(proposal)}")
        count, size = count + 1, size + each.size
    if not options.json:
        print(f"{count} episodes, {size / GIB:.2f} GiB", file=sys.stderr)
    for name, why in sorted(store.damaged.items()):
        print(f"damaged: {name}: {why}", file=sys.stderr)
    return 0


@private
def show(arguments: Sequence[str]) -> int:
    """Show one episode and all labels that it was given."""
    parser = parser_of("episodes show", show.__doc__)
    parser.add_argument("id", help="of the episode")
    options = parser.parse_args(arguments)
    store = store_of(options.root)
    with known(options.id):
        found, labels = store.entry(options.id), store.labels(options.id)
    print(json.dumps(_shown(found) | {"labels": [asdict(each) for each in labels]}, indent=1))
    return 0


def verify(arguments: Sequence[str]) -> int:
    """Check every file of every episode against its manifest; status 1 when one is damaged."""
    store = store_of(parser_of("episodes verify", verify.__doc__).parse_args(arguments).root)
    whole, faults = 0, dict[str, str]()
    for each in store.newest_first():
        try:
            store.open(each.id)
            whole += 1
        except ValueError as error:
            faults[each.id] = str(error)
        except KeyError:
            continue  # removed meanwhile
    faults = dict(store.damaged) | faults
    for episode_id, why in sorted(faults.items()):
        print(f"{episode_id}: {why}", file=sys.stderr)
    print(f"{whole} episodes as published, {len(faults)} damaged")
    return 1 if faults else 0


@private
def label(arguments: Sequence[str]) -> int:
    """Say how an episode went, or take that back; the episode itself stays as it is."""
    parser = parser_of("episodes label", label.__doc__)
    parser.add_argument("id", help="of the episode")
    parser.add_argument("outcome", choices=OUTCOMES)
    parser.add_argument("--source", choices=SOURCES, default=SOURCES[0], help="who or what judged (%(default)s)")
    parser.add_argument("--note", default="", help="why")
    options = parser.parse_args(arguments)
    store = store_of(options.root)
    with known(options.id):
        store.label(options.id, OUTCOMES[options.outcome], options.source, options.note, by())
        print(_line(store.entry(options.id)))
    return 0


@private
def undo(arguments: Sequence[str]) -> int:
    """Take back the newest label of an episode: the one before it counts again."""
    parser = parser_of("episodes undo", undo.__doc__)
    parser.add_argument("id", help="of the episode")
    options = parser.parse_args(arguments)
    store = store_of(options.root)
    with known(options.id):
        store.undo(options.id, by())
        print(_line(store.entry(options.id)))
    return 0


@private
def accept(arguments: Sequence[str]) -> int:
    """Label episodes as a success model proposes."""
    return _decide("accept", accept.__doc__, arguments)


@private
def reject(arguments: Sequence[str]) -> int:
    """Say that what a success model proposes for episodes is not to be their label."""
    return _decide("reject", reject.__doc__, arguments)


@private
def reopen(arguments: Sequence[str]) -> int:
    """Take back that proposals were accepted, with the labels that they became, or rejected."""
    return _decide("undo", reopen.__doc__, arguments)


def _decide(decision: Decision, description: str | None, arguments: Sequence[str]) -> int:
    parser = parser_of(f"episodes {'reopen' if decision == 'undo' else decision}", description)
    parser.add_argument("id", nargs="+", help="of an episode; `pirl episodes ls --proposal open` lists them")
    options = parser.parse_args(arguments)
    store, status = store_of(options.root), 0
    for episode_id in options.id:
        try:
            with known(episode_id):
                decide(store, episode_id, decision, by())
            print(_line(store.entry(episode_id)))
        except ValueError as error:
            print(f"{episode_id}: {error}", file=sys.stderr)
            status = 1
    return status


@private
def prune(arguments: Sequence[str]) -> int:
    """Say which episodes would be removed, and remove them with --yes.

    Labelled successes, episodes of datasets and those that a running job reads stay, but with --force.
    """
    parser = parser_of("episodes prune", prune.__doc__)
    parser.add_argument("--older-than-days", type=float, help="only those that were published before")
    parser.add_argument("--keep-gib", type=float, help="remove the oldest of them until all episodes take no more")
    parser.add_argument("--yes", action="store_true", help="remove them; without it nothing is changed")
    parser.add_argument("--force", action="store_true", help="also what is protected")
    add_flags(parser.add_argument_group("which of them"), EpisodeSelection)
    options = parser.parse_args(arguments)
    store, chosen = store_of(options.root), read_flags(EpisodeSelection, options)
    keep = None if options.keep_gib is None else int(options.keep_gib * GIB)
    found = plan(store, Retention(replace(chosen, limit=None), options.older_than_days, keep), options.force)
    for each in found.remove:
        print(_line(each))
    for each, why in found.protected:
        print(f"stays: {_line(each)}: {why}", file=sys.stderr)
    if not options.yes:
        print(f"{len(found.remove)} episodes, {found.bytes_removed / GIB:.2f} GiB would be removed: add --yes")
        return 0
    count, size = remove(store, found.remove, options.force)
    print(f"{count} episodes, {size / GIB:.2f} GiB removed")
    return 0


def _shown(entry: EpisodeEntry) -> dict[str, object]:
    beside = {"note": entry.note, "author": entry.author, "labelled": entry.labelled, "etag": entry.etag}
    return asdict(entry.summary) | beside | {"bytes": entry.size, "sha256": entry.digest}


def _proposed(proposal: Proposal) -> str:
    outcome = "success" if proposal.success else "failure"
    return f"[{proposal.state}: {outcome}, {proposal.confidence:.3f} by {proposal.model}]"


def _line(entry: EpisodeEntry) -> str:
    said = entry.summary
    outcome = {True: "success", False: "failure", None: "unlabelled"}[said.success]
    versions, size = ",".join(said.policy_versions), entry.size / 2**20
    return (
        f"{said.id}  {said.created}  {said.robot_id}  {outcome:10}  {said.steps:5} steps  {size:7.1f} MiB  {versions}"
        f"  {said.instruction}"
    )
