"""How many files must a reader open to follow one request, one control period, one job config? Traced, not estimated.

    python bench/trips.py [--quick] [--json] [--only infer|arm|job] [--steps]

Every call of a function of this repository is recorded, by thread. `files`: those in which a function was called.
`returns`: calls that lead back into a file left before. `rooms`: folders entered; one entered again counts again.

infer: one Infer of an open episode, client to policy and back, over a socket to the server as `pirl serve` builds it,
with a policy of half a million parameters. Of the network (`model/`, `algorithm/`) the files count, the returns do not.
arm: one accept plus one tick of a real arm (joint targets, by timer) that enters the new chunk.
job: the calls that are given the job's specification or its config, from POST /v1/jobs to the training loop's first
call, with the job's process run in this one; only rooms are counted.
`--quick` changes nothing, it is fast anyway. `--steps` prints the path. Exit status 1: a target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "trips_run"))

from tracer import Trip

TARGETS = {
    "infer": {"files": 40, "returns": 30},
    "arm": {"files": 12, "returns": 30},
    "job": {"rooms": 12},
}


def trace_infer() -> Trip:
    from infer_trip import trace

    return trace()


def trace_arm() -> Trip:
    from arm_trip import trace

    return trace()


def trace_job() -> Trip:
    from job_trip import trace

    return trace()


TRIPS: dict[str, Callable[[], Trip]] = {"infer": trace_infer, "arm": trace_arm, "job": trace_job}
"""each imports its own half of the tree"""


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same")
    parser.add_argument("--json", action="store_true", help="one object, trip -> figure -> number")
    parser.add_argument("--only", choices=TRIPS, help="one trip")
    parser.add_argument("--steps", action="store_true", help="print each file entered, by thread")
    options = parser.parse_args()
    names = [options.only] if options.only else list(TRIPS)
    trips = {name: TRIPS[name]() for name in names}
    figures = {name: trip.figures(TARGETS[name]) for name, trip in trips.items()}
    missed = [f"{name} {key}" for name in names for key, most in TARGETS[name].items() if figures[name][key] > most]
    if options.json:
        print(json.dumps(figures))
    else:
        for name, trip in trips.items():
            limits = ", ".join(f"{key} {figures[name][key]} (at most {most})" for key, most in TARGETS[name].items())
            print(f"{name}: {limits}")
            print(trip.path() if options.steps else "", end="")
        print(f"missed: {', '.join(missed)}" if missed else "every target is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
