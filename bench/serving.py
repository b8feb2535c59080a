"""What does serving cost beside openpi's and lerobot's servers, for one robot and for many? Same policy, same images.

    python bench/serving.py [--quick] [--stations] [--json] [--peers DIR] [--write FILE]

Parts: one robot and a policy of no cost; the stations of its call (`--stations`: these two alone, and without images);
1 to 16 robots and models of 30 and 100 ms; eight robots at 10 Hz and a model of 100 ms per batch, with the server's
health asked for at 10 Hz. Servers run on one core, robots on another, each in a process of its own.
docker/install_oracles.sh makes lerobot's environment; when it is absent lerobot is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "serving_run"))
sys.path.insert(0, str(Path(__file__).parent / "chunks"))

from crowd import crowds, paced
from goals import Parts, goals
from latency import latencies
from model_peers import default_folder
from page import figures, goal_table, page, table
from rig import Rig, started
from stations import stations


def measured(rig: Rig, quick: bool, only_stations: bool) -> Parts:
    """Part -> its rows."""
    if only_stations:
        rounds, calls = (6, 10) if quick else (40, 25)
        one = latencies(rig, rounds, calls, warm_up=calls, payloads=["state"])
        return {"one": one, "stations": stations(rig, rounds, calls)}
    if quick:
        return {
            "one": latencies(rig, rounds=6, calls=10, warm_up=10),
            "stations": stations(rig, rounds=6, calls=10),
            "many": crowds(rig, [100.0], [1, 8], seconds=1.0),
            "eight": paced(rig, 100.0, robots=8, rate_hz=10.0, seconds=2.0),
            "full": crowds(rig, [0.0], [16], seconds=1.0),
        }
    return {
        "one": latencies(rig, rounds=40, calls=25, warm_up=50),
        "stations": stations(rig, rounds=40, calls=50),
        "many": crowds(rig, [30.0, 100.0], [1, 2, 4, 8, 16], seconds=8.0),
        "eight": paced(rig, 100.0, robots=8, rate_hz=10.0, seconds=30.0),
        "full": crowds(rig, [0.0], [16], seconds=30.0),
    }


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer calls, 1 and 8 robots")
    parser.add_argument("--stations", action="store_true", help="only what a session's call without images consists of")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--peers", type=Path, default=default_folder(), help="folder of lerobot's environment")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the tables as a page, e.g. docs/results/serving.md"
    )
    options = parser.parse_args()
    if options.write and options.stations:
        parser.error("--write makes the whole page: leave --stations out")
    with ExitStack() as stack:
        parts = measured(started(stack, options.peers.expanduser()), options.quick, options.stations)
    load = round(os.getloadavg()[0], 2)
    if options.write:
        options.write.write_text(page(parts, load, options.quick))
    if options.json:
        print(json.dumps(figures(parts) | goals(parts) | {"load average at the end": load}))
    else:
        print("\n\n".join([*(table(rows) for rows in parts.values()), goal_table(goals(parts))]))


if __name__ == "__main__":
    main()
