"""Does any input, in any action space, make a command break a limit? Mapper and governor, in simulated time.

    python bench/action_spaces.py [--cases 100000] [--quick] [--seed 0] [--json]

A case is one control period: an action that is ordinary, extreme, alternating, huge, NaN, late or for another
observation, an arm that lags, was moved or is not known, a person's command, a stop. Limits, workspace and period are
drawn again for each hundred of them, and the spaces of docs/how-to/action-spaces.md follow each other, two arms too.
Checked, from the commands alone: position, velocity, acceleration, jerk, workspace, the speed of grippers, that reports
are finite, and how far the stop goes that follows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "action_spaces_run"))
from limit_search import search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000, help="control periods")
    parser.add_argument("--quick", action="store_true", help="5000 of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one object")
    options = parser.parse_args()
    began = time.process_time()
    found = search(5_000 if options.quick else options.cases, options.seed)
    figures: dict[str, object] = {
        "cases": found.cases, "trials": found.trials, "commands sent": found.sent, "stops measured": found.stops,
        "violations": sum(found.broken.values()), "broken": dict(found.broken), "altered by": dict(found.bits),
        "CPU s": round(time.process_time() - began, 1),
    }  # fmt: skip
    print(json.dumps(figures) if options.json else "\n".join(f"{name:20}{value}" for name, value in figures.items()))
    for line in found.worst[:20]:
        print(line, file=sys.stderr)
    sys.exit(1 if found.broken else 0)


if __name__ == "__main__":
    main()
