"""Writes the video of one episode, in a process of its own that gives way to the server's.

    python -m pirl_server.inspection.video_process EPISODE OUT

Exits with 1 and one line on stderr when that can't be done.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from pirl_server.episodes.zarr_layout import EpisodeFile

NICE, CPU_S, MEMORY_BYTES = 10, 300, 4 * 2**30
"""priority below the server's; then the kernel ends it"""


def main(episode: Path, out: Path) -> int:
    """Write it, and return the exit status."""
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from pirl_server.inspection.video import save_video

    try:
        with EpisodeFile(episode) as file:
            save_video(out, file.episode())
    except (ValueError, KeyError, OSError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
