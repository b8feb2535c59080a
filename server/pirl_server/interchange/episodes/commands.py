"""`pirl episodes import` and `pirl episodes export`: arguments in, one function call, and a summary."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pirl_server.config.command_line import add_flags, read_flags
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.fields import parse
from pirl_server.config.interchange import ExportEpisodes, ExportSettings, ImportEpisodes, ImportSettings
from pirl_server.episodes.store import EpisodeStore
from pirl_server.interchange.episodes.export_run import export_episodes
from pirl_server.interchange.episodes.formats import FORMATS
from pirl_server.interchange.episodes.import_run import import_episodes
from pirl_server.paths import EPISODES


class _Printed:
    """Progress on the terminal, one line that rewrites itself."""

    cancelled = False

    def progress(self, done: int, total: int, message: str) -> None:
        """Rewrite the line."""
        end = "\n" if done >= total else ""
        print(f"\r\x1b[K{done}/{total} {message}", end=end, file=sys.stderr, flush=True)


def import_command(arguments: Sequence[str]) -> int:
    """Import recorded episodes of another program into a store."""
    parser = argparse.ArgumentParser(prog="pirl episodes import", description=import_command.__doc__)
    parser.add_argument("path", help="; ".join(f"{each.name}: {each.what}" for each in FORMATS))
    _add_root(parser)
    add_flags(parser, ImportSettings)
    options = parser.parse_args(arguments)
    values = asdict(read_flags(ImportSettings, options))
    spec = parse(ImportEpisodes, values | {"path": options.path})
    done = import_episodes(spec, EpisodeStore(options.root / EPISODES), _Printed())
    print("\n".join(done.lines))
    print(f"{options.root}: {done.imported} episodes imported, {done.already} were there already")
    return 0


def export_command(arguments: Sequence[str]) -> int:
    """Export episodes of a store for another program. Raises ValueError where there is no store."""
    parser = argparse.ArgumentParser(
        prog="pirl episodes export", description=(export_command.__doc__ or "").split(".")[0]
    )
    written = [each.name for each in FORMATS if each.exporter]
    parser.add_argument("format", choices=written)
    parser.add_argument("--out", required=True, help="new folder to write")
    _add_root(parser)
    add_flags(parser, ExportSettings)
    add_flags(parser.add_argument_group("which episodes"), EpisodeSelection)
    options = parser.parse_args(arguments)
    if not (options.root / EPISODES).is_dir():
        raise ValueError(f"'{options.root}' keeps no episodes: give the --root of a server")
    select = asdict(read_flags(EpisodeSelection, options))
    values = asdict(read_flags(ExportSettings, options)) | {"path": options.out, "format": options.format}
    spec = parse(ExportEpisodes, values | {"select": parse(EpisodeSelection, select)})
    done = export_episodes(spec, EpisodeStore(options.root / EPISODES), _Printed())
    print("\n".join(done.lines))
    left_out = "".join(f", {count} {why}" for why, count in done.left_out.items())
    print(f"{options.out}: {done.episodes} episodes; left out: {left_out.removeprefix(', ') or 'none'}")
    return 0


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, default=Path("runs/server"), help="root of a server (default: %(default)s)"
    )
