"""`pirl episodes migrate`: rewrites the directories of schema version 1 as files of the present one, in place.

One episode at a time, while no server holds the root. The new file is written elsewhere and compared with the old
arrays; then it moves beside them, the manifest is replaced by one that names it, and the old arrays go. The manifest
decides which of the two counts, so an episode can be read at every point at which this may be killed; the next run
finishes it. Id, summary, label and digest stay.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pirl_server.atomic_files import sync
from pirl_server.episodes import manifest
from pirl_server.episodes.index import ID
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import GROUPS
from pirl_server.episodes.summary import EARLIER_GROUP, GROUP, read_summary
from pirl_server.episodes.zarr_layout import EpisodeFile, write_group
from pirl_server.paths import EPISODES
from pirl_server.root_lock import root_lock

ROWS_AT_ONCE = 16
"""images that are compared at a time"""


def migrate(arguments: Sequence[str]) -> int:
    """Run `pirl episodes migrate`. Returns 1 when an episode could not be rewritten, and names it."""
    parser = argparse.ArgumentParser(
        prog="pirl episodes migrate",
        description="rewrites episodes of earlier layouts in the present one; stop the server first",
    )
    parser.add_argument("--root", type=Path, default=Path("runs/server"), help="that of the server")
    root: Path = parser.parse_args(arguments).root
    if not (root / EPISODES / "episodes").is_dir():
        parser.error(f"'{root}' holds no episodes: give the folder that `pirl serve --root` was given")
    try:
        with root_lock(root):
            done, failed = migrate_store(root / EPISODES)
    except ValueError as error:
        parser.error(str(error))
    print(f"{done} episodes rewritten, {len(failed)} could not be")
    for why in failed:
        print(why, file=sys.stderr)
    return 1 if failed else 0


def migrate_store(store: Path) -> tuple[int, list[str]]:
    """Rewrite all episodes of a store; return how many were, and why others could not be: they stay as they are."""
    done, failed = 0, list[str]()
    for home in sorted((store / "episodes").glob("*/*")):
        if home.is_symlink() or not home.is_dir() or not ID.fullmatch(home.name):
            continue
        try:
            done += migrate_episode(home, store / "staging")
        except (ValueError, KeyError, OSError) as error:
            failed.append(f"'{home}' stays as it is: {error}")
    return done, failed


def migrate_episode(home: Path, staging: Path) -> bool:
    """Rewrite one; False when there is nothing to do.

    Raises DamagedError, UnreadableError and OSError; the episode is then as it was.
    """
    staged, earlier = staging / home.name, home / EARLIER_GROUP
    shutil.rmtree(staged, ignore_errors=True)
    sealed, summary = manifest.read(home), read_summary(home)
    rewritten = Path(summary.path).name == GROUP
    if not rewritten:
        manifest.verify(home, GROUPS)
        staged.mkdir(parents=True)
        try:
            _write(earlier, staged / GROUP)
            path = summary.path.removesuffix(EARLIER_GROUP) + GROUP
            manifest.seal(staged, sealed.summary | {"path": path}, sealed.digest)
            for name in (GROUP, manifest.NAME):
                os.replace(staged / name, home / name)
                sync(home)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    if earlier.exists():
        shutil.rmtree(earlier)
        sync(home)
        return True
    return not rewritten


def _write(earlier: Path, path: Path) -> None:
    with EpisodeFile(earlier) as old:
        episode = old.episode()
        write_group(path, episode)
        with EpisodeFile(path) as new:
            _compare(episode, new.episode())


def _compare(old: Episode, new: Episode) -> None:
    """Raise ValueError when they differ: then this program is at fault, and the old one must stay."""
    pairs = [(old.info, new.info), (old.final is None, new.final is None)]
    same = all(one == other for one, other in pairs)
    for one, other in ((old.calls, new.calls), (old.steps, new.steps)):
        names = vars(one).keys() - {"images"}
        same = same and all(_equal(getattr(one, name), getattr(other, name)) for name in names)
    for camera, images in old.calls.images.items():
        for start in range(0, len(images), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            same = same and _equal(images[rows], new.calls.images[camera][rows])
    if old.final is not None and new.final is not None:
        same = same and _equal(old.final.state, new.final.state)
        same = same and all(_equal(image, new.final.images[name]) for name, image in old.final.images.items())
    if not same:
        raise ValueError("what was rewritten is not what was read: report this, with the version of pirl")


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
