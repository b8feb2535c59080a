"""Are jobs lost, run twice on a device, left behind, or changed in a bit, when the server or a trainer is killed?

    python bench/crash_jobs.py [--quick] [--json] [--server N] [--parts N] [--seed N]

1. SIGKILL at random moments for the server, also between a submission and its answer; the next one continues.
2. SIGKILL at random moments for trainers, their reapers and the runner, below one server.

Jobs run on two devices, each submitted twice with one key; their results are compared with those of runs that were left
alone. The control starts two trainers on one device without leases, which must be noticed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "crash_jobs_run"))

from job_kills import Kills, kills
from toy_trainer import VIOLATION

TRAINER = Path(__file__).parent / "crash_jobs_run" / "toy_trainer.py"


def control(folder: Path) -> bool:
    """Whether two trainers on one device are noticed."""
    started = []
    for name in ("one", "two"):
        (job := folder / "jobs" / name).mkdir(parents=True)
        (job / "spec.json").write_text('{"seed": 1}')
        (job / "state.json").write_text('{"device": "cpu:0"}')
        started.append(subprocess.Popen([sys.executable, str(TRAINER), str(job)]))
    for each in started:
        each.wait()
    return (folder / VIOLATION).exists()


def main() -> int:
    """Run both parts; the status is 1 where something was found that must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 kills each")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--server", type=int, metavar="N", help="kills of the server (default: 100)")
    parser.add_argument("--parts", type=int, metavar="N", help="kills of what it started (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    default = 3 if options.quick else 100
    with tempfile.TemporaryDirectory() as folder:
        rows: dict[str, Kills] = {}
        for name, wanted in (("server", options.server), ("parts", options.parts)):
            count = default if wanted is None else wanted
            if count:
                rows[name] = kills(Path(folder) / name, count, name == "server", options.seed)
                if not options.json:
                    print(name, asdict(rows[name]), flush=True)
        noticed = control(Path(folder) / "control")
    if options.json:
        print(json.dumps({name: asdict(row) for name, row in rows.items()} | {"control noticed": noticed}, indent=1))
    else:
        print("control: two trainers on one device are noticed:", noticed)
    return int(any(row.faults for row in rows.values()) or not noticed)


if __name__ == "__main__":
    raise SystemExit(main())
