"""Seconds until a process has imported what it serves a policy with: medians, on a warm file cache."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

REPEATS = 3
STATEMENTS = {
    "transformers": "from transformers import PI0ForConditionalGeneration",
    "lerobot": "from lerobot.policies.pi0.modeling_pi0 import PI0Pytorch",
}


def seconds(python: str, statement: str) -> float:
    """Wall time of a process that runs one statement, less the interpreter's own start."""
    times = []
    for _ in range(REPEATS):
        lap = time.perf_counter()
        subprocess.run([python, "-c", "pass"], check=True)
        empty = time.perf_counter() - lap
        lap = time.perf_counter()
        subprocess.run([python, "-c", statement], check=True, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - lap - empty)
    return median(times)


def imports(found: dict[str, str]) -> dict[str, float]:
    """Figures by name."""
    figures = {
        "import pirl_server.app, s": seconds(sys.executable, "import pirl_server.app"),
        "import torch, s": seconds(sys.executable, "import torch"),
    }
    for peer, statement in STATEMENTS.items():
        if peer in found:
            figures[f"import PI0 of {peer}, s"] = seconds(found[peer], statement)
    return {name: round(value, 2) for name, value in figures.items()}
