"""Does the store of episodes lose what it acknowledged, or show what is not whole, when processes, power or disks fail?

    python bench/crash_store.py [--quick] [--json] [--only kills,power,damage,disk,server] [--write FILE]

1. `kill -9` at random moments among ten writers of one store; after every fifty a fresh process lists and verifies.
2. Power cuts at random points of a recorded run: a disk that keeps only what was forced to it, and the rest by chance.
3. Flipped bits and cut files of every kind: found, or in bytes that nothing reads.
4. A disk that rejects: every call in turn, full, files that may not grow, read-only folders.
5. A real server whose disk takes no episode for a while.

1 and 2 have controls, which must lose: writers that acknowledge too early, and a store that forces too little.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "crash_store_run"))

from crash_damage import damages
from crash_disk import CODES, failing_calls, full_disk, read_only, small_files
from crash_journal import FILES, FOLDERS
from crash_kills import kills
from crash_page import page
from crash_power import power_cuts
from crash_serving import serving

Rows = dict[str, dict[str, Any]]
KILLS = ((64, 30, 880), (224, 60, 100), (224, 300, 20))
"""pixels, policy calls, kills; the last are episodes of full size"""
QUICK_KILLS = ((32, 20, 30),)
CONTROLS = {"nothing forced": (), "no folder forced": (FILES,), "no file forced": (FOLDERS,)}
ALL_CALLS = 10_000
MEMORY, MODELLED = "/dev/shm", ("power", "damage")
"""a folder in memory, for the parts that no disk takes part in: quicker"""


def killed(folder: Path, quick: bool) -> Rows:
    rows: Rows = {}
    for pixels, calls, count in QUICK_KILLS if quick else KILLS:
        found = kills(folder / f"{pixels}-{calls}", pixels, calls, count)
        rows[f"kills, {found.mib:.1f} MiB"] = vars(found)
    early = kills(folder / "early", 32, 20, 10 if quick else 100, early=True)
    return rows | {"control: acknowledged before it is written": vars(early)}


def cut_off(folder: Path, quick: bool) -> Rows:
    rows = {"power cuts": vars(power_cuts(folder / "cuts", *((20, 6) if quick else (200, 12))))}
    for name, forced in CONTROLS.items():
        rows[f"control: {name}"] = vars(power_cuts(folder / name, 10 if quick else 30, 6, forced))
    return rows


def damaged(folder: Path, quick: bool) -> Rows:
    return {f"damage, {kind}": vars(row) for kind, row in damages(folder, 10 if quick else 143).items()}


def rejected(folder: Path, quick: bool) -> Rows:
    rows: Rows = {}
    for name, code in CODES.items():
        rows[f"{name} in each call"] = vars(failing_calls(folder / name, code, range(1, ALL_CALLS, 12 if quick else 1)))
    few = 5 if quick else 50
    rows["files that may not grow"] = vars(small_files(folder / "small", few))
    rows["full tmpfs"] = vars(full_disk(folder / "full", few))
    return rows | {"read-only folder": vars(read_only(folder / "read-only"))}


def served(folder: Path, quick: bool) -> Rows:
    return {"server": serving(folder, 2 if quick else 20)}


PARTS: dict[str, Callable[[Path, bool], Rows]] = {
    "kills": killed, "power": cut_off, "damage": damaged, "disk": rejected, "server": served,
}  # fmt: skip


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the tries")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,PART", help="some of: %(default)s")
    parser.add_argument("--json", action="store_true", help="one object, kind -> figure -> number")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the page of results")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows, began = Rows(), time.monotonic()
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory(
            dir=MEMORY if name in MODELLED and os.access(MEMORY, os.W_OK) else None
        ) as folder:
            os.chmod(folder, 0o755)  # one part is another user
            rows |= PARTS[name](Path(folder), options.quick)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    if options.write:
        options.write.write_text(page(rows, time.monotonic() - began))
    if options.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(name + "".join(f"\n  {figure:24}{value}" for figure, value in row.items()))


if __name__ == "__main__":
    main()
