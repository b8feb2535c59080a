"""`pirl episodes replay`: arguments in, a report on stdout, an exit status."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pirl_server.episodes.manifest import DamagedError, UnreadableError
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES


def replay(arguments: Sequence[str]) -> int:
    """Draw stored decisions again: by the version that drew them, and by another one to see what it would have done.

    Returns 1 when a decision was drawn again by its own version and is not reproduced.
    """
    parser = argparse.ArgumentParser(prog="pirl episodes replay", description=(replay.__doc__ or "").splitlines()[0])
    parser.add_argument("id", metavar="ID", help="of the episode")
    parser.add_argument(
        "--root", type=Path, required=True, help="of the server: its episodes and its archive of versions"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--call", type=int, metavar="N", help="one decision, counted from 0")
    which.add_argument("--all", action="store_true", help="all decisions (default)")
    by = parser.add_mutually_exclusive_group()
    by.add_argument("--version", metavar="V", help="compare with this archived version, or an alias such as production")
    by.add_argument("--checkpoint", type=Path, metavar="DIR", help="compare with the version in this folder")
    parser.add_argument("--seeds", type=int, default=8, help="drawn of both versions to know their noise (%(default)s)")
    parser.add_argument("--device", default="cpu", help="that draws (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="write a figure")
    return _replay(parser.parse_args(arguments))


def _replay(options: argparse.Namespace) -> int:
    from pirl_server.inspection import replay_report
    from pirl_server.inspection.episode_replay import replay as run
    from pirl_server.inspection.versions import load_archived, load_folder

    episode = open_episode(options.root, options.id)
    contract, other = episode.info.contract, None
    if options.version is not None:
        other = load_archived(options.root, options.version, contract, options.device)
    elif options.checkpoint is not None:
        other = load_folder(options.checkpoint, contract, options.device)
    calls = np.flatnonzero(episode.calls.policy_version >= 0).tolist() if options.call is None else [options.call]
    if not calls:
        raise ValueError(
            f"episode '{options.id}' has no policy call, as a demonstration: there is nothing to draw again"
        )
    recorded = {}
    for version in episode.info.policy_versions:
        try:
            recorded[version] = load_archived(options.root, version, contract, options.device)
        except ValueError as error:
            if other is None:
                raise
            print(f"pirl episodes replay: {error}; not checked", file=sys.stderr)
    results = run(episode, calls, recorded, other, options.seeds)
    name = None if other is None else other.version
    if options.json:
        print(json.dumps(replay_report.as_json(episode, results, name), allow_nan=False))
    else:
        print("\n".join(replay_report.lines(episode, results, name)))
    if options.plot is not None:
        from pirl_server.inspection.replay_figure import save_replay_figure

        save_replay_figure(options.plot, episode, results, name)
    return int(any(each.recorded is not None and not each.recorded.same for each in results))


def open_episode(root: Path, episode_id: str) -> Episode:
    """Read one episode below a server's root. Raises ValueError that says what is missing or damaged."""
    if not (root / EPISODES).is_dir():
        raise ValueError(f"'{root}' has no folder '{EPISODES}': give the --root of a server")
    try:
        return EpisodeStore(root / EPISODES).open(episode_id)
    except KeyError:
        raise ValueError(f"no episode '{episode_id}' in '{root / EPISODES}'") from None
    except (DamagedError, UnreadableError) as error:
        raise ValueError(f"episode '{episode_id}': {error}") from None


def draw(arguments: Sequence[str]) -> int:
    """Draw an episode: a contact sheet of its decisions, a video of its steps, figures of its numbers.

    Raises ValueError when no file is given, or no episode of that id is there.
    """
    parser = argparse.ArgumentParser(prog="pirl episodes draw", description=(draw.__doc__ or "").splitlines()[0])
    parser.add_argument("id", metavar="ID", help="of the episode")
    parser.add_argument("--root", type=Path, required=True, help="of the server")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="contact sheet of the decisions")
    parser.add_argument("--video", type=Path, metavar="FILE.mp4", help="one frame per step, all cameras, the action")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="commanded against executed, ages, alterations")
    options = parser.parse_args(arguments)
    if not (options.sheet or options.video or options.plot):
        raise ValueError("nothing to draw: give --sheet, --video or --plot with a file")
    episode = open_episode(options.root, options.id)
    if options.sheet:
        from pirl_server.inspection.contact_sheet import save_contact_sheet

        save_contact_sheet(options.sheet, episode)
    if options.video:
        from pirl_server.inspection.video import save_video

        save_video(options.video, episode)
    if options.plot:
        from pirl_server.inspection.episode_figure import save_episode_figure

        save_episode_figure(options.plot, episode)
    return 0
