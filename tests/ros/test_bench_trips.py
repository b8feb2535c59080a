"""A control period of the arm stays within the files that docs/architecture.md promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "trips.py"


def test_one_accept_and_one_tick_of_the_arm_meet_their_targets() -> None:
    done = subprocess.run([sys.executable, BENCH, "--only", "arm", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)["arm"]
    assert figures["files"] > 5, "the trip was traced"
    assert figures["returns"] > 5
