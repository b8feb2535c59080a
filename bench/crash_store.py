"""What does a store of episodes lose? Kills, power cuts, flipped bits, and a disk that is full or fails.

    python bench/crash_store.py [--quick] [--json] [--write docs/results/episodes-crash.md]

1. Kills: ten writers at a time, SIGKILL at a random moment of writing or labelling. Lost is what a writer was told is
   kept and is not there, or was labelled and is not.
2. Power cuts: before a random forced write the power is cut; what comes back is what had been forced to the disk, in
   every second cut with some of what had not. The control leaves the forcing out.
3. Flipped bits and cut files, of each kind of file in turn.
4. A disk that is full in the middle of a write, and one that fails: what was rejected is written again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "crash_store_run"))

from damage import damaged
from episodes import made
from kills import killed
from power_cut import cut
from rejections import rejected

from pirl_server.episodes import index


def measured(quick: bool) -> dict[str, dict[str, int]]:
    """All four, and the control."""
    index.YOUNG_NS = 0  # the store has been at rest for a minute
    full_size, small = made(60, 300, 224), made(6, 12, 48)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        return {
            "kills": killed(home, full_size, *((5, 2.0) if quick else (100, 3.0))),
            "power cuts": cut(home, small, 20 if quick else 200),
            "power cuts, nothing forced (control)": cut(home, small, 4 if quick else 20, works=False),
            "flipped bits and cut files": damaged(home, small, 50 if quick else 1000),
            "a disk that is full or fails": rejected(home, small, 10 if quick else 100),
        }


def page(figures: dict[str, dict[str, int]], seconds: float) -> str:
    """The result as a page."""
    said = (__doc__ or "").partition("\n\n    python")[0]
    lines = ["# What a store of episodes loses", "", said, ""]
    lines += [(__doc__ or "").split("episodes-crash.md]\n\n")[1].strip(), ""]
    for name, rows in figures.items():
        lines += [f"## {name[0].upper()}{name[1:]}", "", "| | |", "|---|---|"]
        lines += [f"| {row} | {count:,} |" for row, count in rows.items()] + [""]
    lines += [f"{seconds:.0f} s on two cores, in temporary files. Reproduce: `python bench/crash_store.py`.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: 50 kills, 20 cuts, 50 damages")
    parser.add_argument("--json", action="store_true", help="one object, what -> figure -> number")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the result as a page")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # each damage is a line
    began = time.perf_counter()
    figures = measured(options.quick)
    seconds = time.perf_counter() - began
    if options.write:
        options.write.write_text(page(figures, seconds))
    if options.json:
        print(json.dumps(figures))
        return
    for name, rows in figures.items():
        print(name + "".join(f"\n  {row:44}{count:>8}" for row, count in rows.items()))
    print(f"{seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
