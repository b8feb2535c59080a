"""`pirl episodes verify`: compares what a store holds with its manifests."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES


def verify(arguments: Sequence[str]) -> int:
    """Check every file of every episode against its manifest; status 1 when one is damaged."""
    parser = argparse.ArgumentParser(prog="pirl episodes verify", description=(verify.__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the server")
    store = EpisodeStore(parser.parse_args(arguments).root / EPISODES)
    listed = store.list()
    faults = dict(store.damaged)
    for each in listed:
        try:
            store.open(each.id)
        except ValueError as error:
            faults[each.id] = str(error)
    for episode_id, why in sorted(faults.items()):
        print(f"{episode_id}: {why}", file=sys.stderr)
    whole = len({each.id for each in listed} - faults.keys())
    print(f"{whole} episodes as published, {len(faults)} damaged")
    return 1 if faults else 0
