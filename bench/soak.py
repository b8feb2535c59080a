"""Does the server grow when it runs for long, and does a robot with a bad wire harm the others?

    python bench/soak.py [--minutes M] [--quick] [--json]

1. Eight robots at 10 Hz drive episodes, reconnect, publish and discard; the policy is swapped twice a second. Slopes of
   the server's resident memory and of its open files, by least squares, each with its 95 % interval (from 5 minutes).
2. Eight robots' latency while four others read their replies at 5 kB/s, and while four others' connections are half
   open (a proxy that stops forwarding), beside their latency without those. The three take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "serving_run"))

from payloads import SOAK
from processes import Process, cores, start
from rig import percentiles
from slope import slope_per_hour

ROBOTS, TROUBLED, RATE_HZ = 8, 4, 10.0
MODEL_MS, SWAP_S = 5.0, 0.5
SLOPE_S = 300.0
"""Python frees what refers to itself in rounds of half a minute: a slope over less shows the round"""
PAYLOAD, PATH = "3x224", "session"
MODES = ("none", "slow", "silent")


def soak(server: Process, robots: Process, seconds: float) -> dict[str, float]:
    """Load, swaps and a sample of memory and files twice a second."""
    port = server.ask("open", payload=SOAK, model_ms=MODEL_MS)["port"]
    robots.tell("live", port=port, payload=SOAK, robots=ROBOTS, seconds=seconds)
    times, memory, files, began = [], [], [], time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        server.ask("swap")
        sample = server.ask("memory")
        times.append(now)
        memory.append(sample["resident"] / 2**20)
        files.append(sample["files"])
        time.sleep(max(0.0, began + len(times) * SWAP_S - time.monotonic()))
    seen = {"chunks of mixed versions": 0, **robots.reply()}
    figures = {"minutes": round(seconds / 60, 2), "swaps": len(times), **seen}
    figures["requests failed"] = sum(count for name, count in seen.items() if name.startswith("failed"))
    return figures | growth("resident memory, MiB", times, memory) | growth("open files", times, files)


def growth(name: str, times: list[float], values: list[float]) -> dict[str, float]:
    """Where it ended and, after `SLOPE_S`, how fast it rose."""
    end = {f"{name}, at the end": round(float(np.mean(values[-5:])), 1)}
    if times[-1] < SLOPE_S:
        return end
    slope, half = slope_per_hour(times, values)
    return end | {
        f"{name}, slope per hour": round(slope, 2),
        f"{name}, 95 % interval of the slope, +-": round(half, 2),
    }


def bystanders(server: Process, robots: Process, trouble: Process, turns: int, seconds: float) -> dict[str, float]:
    """p50 and p99 of eight healthy robots beside none, slow and half-open others, and their ratios."""
    port = server.ask("open", payload=PAYLOAD, model_ms=MODEL_MS)["port"]
    robots.ask("connect", key="healthy", path=PATH, port=port, payload=PAYLOAD, robots=ROBOTS)
    spans: dict[str, list[float]] = {mode: [] for mode in MODES}
    failed: Counter[str] = Counter()
    for turn in range(turns):
        for mode in MODES[turn % 3 :] + MODES[: turn % 3]:
            if mode != "none":
                trouble.ask("begin", port=port, payload=PAYLOAD, mode=mode, robots=TROUBLED)
            answer = robots.ask("crowd", key="healthy", robots=ROBOTS, seconds=seconds, rate_hz=RATE_HZ)
            if mode != "none":
                trouble.ask("end")
            spans[mode] += [span for each in answer["spans"] for span in each]
            failed.update(answer["failures"])
    figures: dict[str, float] = {"requests of healthy robots that failed": sum(failed.values()), **failed}
    for mode in MODES:
        figures |= {f"beside {mode}, {name}": value for name, value in percentiles(spans[mode]).items()}
        figures[f"beside {mode}, chunks"] = len(spans[mode])
    for mode in MODES[1:]:
        ratio = figures[f"beside {mode}, p99 ms"] / figures["beside none, p99 ms"]
        figures[f"p99 beside {mode} / beside none [<= 1.1]"] = round(ratio, 3)
    return figures


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="length of the first part (default 20; 0: the second only)"
    )
    parser.add_argument("--quick", action="store_true", help="under a minute in all")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    options = parser.parse_args()
    seconds, turns, turn_s = (8.0, 1, 2.0) if options.quick else (60 * options.minutes, 10, 15.0)
    server_core, robot_core = cores()
    with ExitStack() as stack:
        servers = [start(stack, "our_server.py", server_core) for _ in range(2)]
        robots = [start(stack, script, robot_core) for script in ("soak_robots.py", "soak_robots.py", "our_robots.py")]
        for process in (*servers, *robots):
            process.wait()
        figures = soak(servers[0], robots[0], seconds) if seconds else {}
        figures |= bystanders(servers[1], robots[2], robots[1], turns, turn_s)
    figures["load average at the end"] = round(os.getloadavg()[0], 2)
    print(json.dumps(figures) if options.json else "\n".join(f"{key:64}{value:>10}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
